"""Connection to the shim of a container by ttrpc: wait, state, kill."""
