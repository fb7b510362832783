"""containerd's gRPC API as typed records: calls, deadlines, errors."""
