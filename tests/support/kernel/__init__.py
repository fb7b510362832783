"""The kernel around a task: networks, devices, file systems, filters, cgroups, and shortage."""
