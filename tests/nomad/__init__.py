"""A real Nomad around the driver: a whole agent, and the plugin host of two versions."""
