"""What a task gets of its node: mounts, devices, network files, network namespace."""
