"""Capabilities, masked paths and seccomp of a task."""
