"""`./dev bench --peers`: the driver beside docker's and podman's drivers on a Nomad agent."""
