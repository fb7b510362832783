"""Registries: hosts, TLS, authentication, manifests and blobs."""
