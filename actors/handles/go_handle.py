"""Handles of version 1: the handles of the Go driver, Roblox/nomad-driver-containerd up to 0.9.4.

The handle is old-format msgpack, where str and bytes have one type: a map of the driver's Go
struct, with the time in Go's binary form.
"""

from __future__ import annotations

import struct

import msgpack

from actors.model import identifiers
from proto.errors import Code, DriverError
from proto.values import dataclass

VERSION = 1
_TIME = struct.Struct(">bqih")  # version, seconds since the year 1, ns, offset of the zone in min
_TIME_VERSION = 1
_UNIX_EPOCH_S = 62135596800
_MAX_PATH = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class GoHandle:
    """The Go driver's facts of a started task; containerd has the other facts.

    stdout_path and stderr_path are Nomad's FIFOs.
    """

    container_id: str
    started_at_ns: int
    stdout_path: str
    stderr_path: str

    @property
    def containerd_namespace(self) -> str:
        """Namespace of the container: release 0.9.4 has other names and ids on cgroup v2."""
        return identifiers.namespace(cgroup_v2=self.container_id.endswith(".scope"))

    @classmethod
    def decode(cls, data: bytes) -> GoHandle:
        """Reads a handle.

        Raises:
            DriverError: `failed to decode task state from handle`, code CORRUPT.
        """
        try:
            fields = msgpack.unpackb(data, raw=True)
            return cls(
                container_id=_container_id(fields[b"ContainerName"]),
                started_at_ns=_time(fields[b"StartedAt"]),
                stdout_path=_path(fields[b"StdoutPath"]),
                stderr_path=_path(fields[b"StderrPath"]),
            )
        except (ValueError, TypeError, KeyError, msgpack.UnpackException, struct.error) as error:
            raise DriverError(
                "failed to decode task state from handle",
                details=f"version 1, of the Go driver: {type(error).__name__}: {error}"[:200],
                resolution="let Nomad start the task again",
                code=Code.CORRUPT,
            ) from error


def _container_id(value: bytes) -> str:
    """Returns the container's id; the driver uses the id as a directory's name, so it is checked.

    Raises:
        ValueError: containerd would refuse the id.
    """
    text = str(value, "utf-8")
    if not identifiers.is_container_id(text):
        raise ValueError(f"{text[:80]!r} is not a container id")
    return text


def _time(value: bytes) -> int:
    version, seconds, nanoseconds, _ = map(int, _TIME.unpack(value))
    if version != _TIME_VERSION:
        raise ValueError(f"unknown version {version} of a time")
    return max(0, (seconds - _UNIX_EPOCH_S) * 1_000_000_000 + nanoseconds)


def _path(value: bytes) -> str:
    text = str(value, "utf-8")
    if not text.startswith("/") or "\0" in text or len(value) >= _MAX_PATH:
        raise ValueError(f"{text[:80]!r} is not an absolute path")
    return text
