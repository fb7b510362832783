"""Definitions of all messages that cross a process border, written for this project.

`nomad/` and `containerd/` hold .proto files and generated stubs. `frames` and `errors` define the
messages between plugin, launcher, workers and puller. The launcher and the workers import this
package, `frames` and `errors`, so none of these imports protobuf.
"""
