"""Images for tasks: pulls, use by tasks, and removal of unused images."""
