"""Wire definitions and stubs of nomad's services."""
