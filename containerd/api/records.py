"""What containerd keeps, as plain frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Status(Enum):
    """containerd's own view of a task. Values are the wire's numbers."""

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
class ImageRecord:
    """A name that points at a manifest or an index; size is that blob's, in bytes."""

    name: str
    digest: str
    media_type: str
    size: int
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One mount of a snapshot, in the terms of mount(8). target counts from the snapshot's root."""

    type: str
    source: str
    options: tuple[str, ...]
    target: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRecord:
    """A container: what a task is made from. spec_json is the OCI runtime spec.

    runtime_binary is the program that a shim of runc's kind runs, empty for its own choice.
    created_at_ns, of the epoch, is containerd's to set.
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
    """A lease: what keeps things from containerd's collection until something refers to them."""

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
class TaskRecord:
    """A task's first process. exit_status and exited_at_ns hold once it is STOPPED.

    stdout and stderr are the FIFOs that its shim writes to.
    """

    id: str
    pid: int
    status: Status
    exit_status: int
    exited_at_ns: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a process ended: code is 128 + n for signal n; at_ns is nanoseconds of the epoch."""

    code: int
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShimAddress:
    """Where a shim speaks ttrpc, and 2 or 3 for containerd.task.v2 or v3.

    address is as containerd wrote it: unix://PATH, or the name of an abstract socket.
    """

    address: str
    api: int
