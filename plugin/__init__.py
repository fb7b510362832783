"""Nomad's side: handshake, RPC services, options, commands, dev host."""
