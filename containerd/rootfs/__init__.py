"""Reads the root file system of a snapshot through a mount that no task sees."""
