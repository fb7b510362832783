"""The embedded host: for one machine and one job, what a Nomad agent would do."""
