"""The launcher and the workers under test, and the readers of their logs."""
