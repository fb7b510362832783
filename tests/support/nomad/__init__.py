"""A real Nomad around the driver: a whole agent, a plugin host, Consul, and their jobs."""
