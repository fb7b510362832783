"""Nomad's gRPC services: decode requests, call the gateway, encode answers."""
