"""Real programs and fakes that the tests start."""
