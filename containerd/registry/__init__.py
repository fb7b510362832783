"""Reads manifests and blobs from registries: hosts, TLS, proxies, authentication, retries."""
