"""Blocking calls without a time limit, kept off the event loop."""
