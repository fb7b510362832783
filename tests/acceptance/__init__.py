"""Jobs of `example/` through every way to drive the driver."""
