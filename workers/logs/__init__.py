"""A task's log FIFOs: kept open, buffered, relayed."""
