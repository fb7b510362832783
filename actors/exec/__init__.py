"""Commands inside running tasks, and the streams of the commands."""
