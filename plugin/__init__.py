"""Nomad's side: handshake, RPC services, options, command line, the embedded host."""
