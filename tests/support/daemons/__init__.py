"""Real daemons of the tests: containerd with its releases and runtimes, and journald."""
