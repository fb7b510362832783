"""Wire definitions: what crosses a process border, written here.

`nomad/` and `containerd/` hold .proto files and their generated stubs; `frames` and `errors` are
the project's own wire between plugin, launcher, workers and puller. Importing this package, or
`frames` and `errors`, never imports protobuf: the launcher and the workers use them.
"""
