"""The agent's side of the plugin protocol: starts a plugin and calls the plugin as Nomad does."""
