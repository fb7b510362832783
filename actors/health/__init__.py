"""Fingerprint of the node and the checks of doctor."""
