"""Handles: what Nomad keeps of a task, so that a plugin can recover the task."""
