"""The concurrent part of the plugin process: one Supervisor, one TaskActor per task, and helpers.

Requests come down from `plugin` through `gateway.Gateway`; events go up as messages.
"""
