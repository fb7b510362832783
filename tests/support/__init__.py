"""Real parts and fakes that the tests start."""
