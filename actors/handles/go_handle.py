"""Handles of version 1: those of the Go driver, Roblox/nomad-driver-containerd up to 0.9.4.

Its bytes are msgpack of before that had strings and binary data apart: a map of its Go struct, with
the time as Go writes it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import msgpack

from actors.model import identifiers
from proto.errors import Code, DriverError

VERSION = 1
_TIME = struct.Struct(">bqih")  # version, seconds since the year 1, ns, offset of the zone in min
_TIME_VERSION = 1
_UNIX_EPOCH_S = 62135596800
_MAX_PATH = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class GoHandle:
    """What the Go driver wrote down about a task; it asked containerd for the rest, and so do we.

    stdout_path and stderr_path are Nomad's FIFOs.
    """

    container_id: str
    started_at_ns: int
    stdout_path: str
    stderr_path: str

    @property
    def containerd_namespace(self) -> str:
        """Returns where its container is: 0.9.4 has a namespace and ids of its own on cgroup v2."""
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
                details=f"of version 1, the Go driver's: {type(error).__name__}: {error}"[:200],
                resolution="have Nomad start the task anew",
                code=Code.CORRUPT,
            ) from error


def _container_id(value: bytes) -> str:
    """It becomes the name of a directory, so it must be one that containerd would take."""
    text = str(value, "utf-8")
    if not identifiers.is_container_id(text):
        raise ValueError(f"{text[:80]!r} is no container id")
    return text


def _time(value: bytes) -> int:
    version, seconds, nanoseconds, _ = map(int, _TIME.unpack(value))
    if version != _TIME_VERSION:
        raise ValueError(f"a time of version {version}")
    return max(0, (seconds - _UNIX_EPOCH_S) * 1_000_000_000 + nanoseconds)


def _path(value: bytes) -> str:
    text = str(value, "utf-8")
    if not text.startswith("/") or "\0" in text or len(value) >= _MAX_PATH:
        raise ValueError(f"{text[:80]!r} is no absolute path")
    return text
