"""Dev host: runs one job on one machine, in place of a Nomad agent."""
