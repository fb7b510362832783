"""Log FIFOs of a task: kept open, buffered, relayed, reported."""
