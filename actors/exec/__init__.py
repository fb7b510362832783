"""Commands that run beside a task's own process."""
