"""The plugin under test: process, calls and tasks."""
