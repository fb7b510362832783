"""Nomad's gRPC services: requests are decoded, the gateway is asked, answers are encoded."""
