"""Handles: the bytes that Nomad keeps for a task, for the recovery of the task by a new plugin."""
