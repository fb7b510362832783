"""Resources of the node for a task: mounts, devices, network files, network namespace."""
