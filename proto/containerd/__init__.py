"""Wire definitions and stubs of containerd's services."""
