"""The sequences of a task: start, recover, remove."""
