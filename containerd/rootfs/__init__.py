"""Read access to the root file system of a snapshot, mounted where no task sees the mount."""
