"""Commands of containerd-driver: run, spec, doctor and gc, with their output."""
