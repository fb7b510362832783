"""containerd's objects as frozen dataclasses without protobuf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from enum import Enum

from proto.values import dataclass


class Status(Enum):
    """containerd's own view of a task. Values are the numbers of the wire."""

    UNKNOWN = 0
    CREATED = 1
    RUNNING = 2
    STOPPED = 3
    PAUSED = 4
    PAUSING = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """containerd's version, such as 1.6.20, and its source revision."""

    version: str
    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deprecation:
    """containerd's warning about a feature in use that a later release lacks.

    id is a word such as cgroup-v1, message a sentence or more, with the release and the remedy.
    """

    id: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """A name that points at a manifest or an index; size is in bytes, of that blob."""

    name: str
    digest: str
    media_type: str
    size: int
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """containerd's mount of a snapshot, in the terms of mount(8).

    target is relative to the snapshot's root. Other mounts have classes of their own: `MountPoint`
    is OCI's, `MountConfig` Nomad's, `MountOption` the job option's, `VolumeMount` the dev host's.
    """

    type: str
    source: str
    options: tuple[str, ...]
    target: str = ""

    def with_options(self, options: tuple[str, ...]) -> Mount:
        """Returns the mount with further options."""
        return replace(self, options=(*self.options, *options)) if options else self


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRecord:
    """A container: the record from which a task is created.

    spec_json is the OCI runtime spec; empty in a list. runtime_binary is the program that runc's
    shim runs; empty for the shim's own choice. containerd sets created_at_ns, nanoseconds since the
    epoch.
    """

    id: str
    labels: Mapping[str, str]
    image: str
    runtime: str
    spec_json: bytes = field(repr=False)
    snapshotter: str
    snapshot_key: str
    runtime_binary: str = ""
    created_at_ns: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """A lease: protects objects from containerd's collection until other objects refer to them."""

    id: str
    labels: Mapping[str, str]
    created_at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRecord:
    """A snapshot that is not committed: the root of a container."""

    snapshotter: str
    key: str
    labels: Mapping[str, str]
    created_at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """Paths of the FIFOs that a shim opens for a process; an empty path is /dev/null.

    terminal is True for a process with a terminal, whose output is all in stdout.
    """

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    terminal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """A task's first process. exit_status is valid once status is STOPPED.

    stdout and stderr are the FIFOs that the task's shim writes to.
    """

    id: str
    pid: int
    status: Status
    exit_status: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """The end of a process: code is 128 + n for signal n; at_ns is nanoseconds since the epoch."""

    code: int
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShimAddress:
    """A shim's ttrpc socket, and the version of its Task service: 2 or 3 (containerd.task.v2, v3).

    address has containerd's own form: unix://PATH, or the name of an abstract socket.
    """

    address: str
    api: int
