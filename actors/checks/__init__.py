"""Health checks of tasks: the file by which the worker gets the check."""
