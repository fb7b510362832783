"""The commands of containerd-driver: run, spec, doctor and gc, and how their output looks."""
