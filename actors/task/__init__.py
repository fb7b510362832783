"""State machine of a task, and the actor that runs the state machine."""
