"""Images, and the registries, servers and proxies from which the driver fetches images."""
