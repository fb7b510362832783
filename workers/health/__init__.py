"""Health check of a task: the command beside the task, its timing, and the task's health."""
