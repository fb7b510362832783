"""ttrpc to a container's shim: wait, state, kill."""
