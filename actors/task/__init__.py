"""The task's state machine and the actor that runs it."""
