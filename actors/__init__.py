"""Concurrent part of the plugin process: a Supervisor, a TaskActor for each task, and functions.

Requests come down from `plugin` through `gateway.Gateway`; events go up as messages.
"""
