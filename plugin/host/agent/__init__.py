"""The agent's side of the plugin protocol: starts a plugin and calls it as Nomad does."""
