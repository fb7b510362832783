"""The bytes in Nomad's task handle: everything that RecoverTask needs.

Nomad does not return the job's config after an agent restart, so the handle must be complete.
Version 1 belongs to the Go driver (`go_handle`), version 2 to this driver.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import msgpack

from actors.model.task_logs import NOMAD_LOG, LogTarget
from proto import frames
from proto.errors import Code, DriverError
from proto.values import dataclass

VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class HandleState:
    """The facts of a started task.

    boot_id: the kernel's; a task of another boot cannot run any more.
    stop_signal: the job's or the image's, a name or number; empty means SIGTERM.
    log: the collector of the log; missing in a handle of a release before 1.4.0: Nomad.
    host_kernel: True if the task's processes run on the host's kernel; missing in a handle of a
        release before 1.4.0: False.
    """

    container_id: str
    containerd_namespace: str
    snapshotter: str
    boot_id: str
    started_at_ns: int
    pid: int
    stdout_path: str
    stderr_path: str
    stop_signal: str
    image: str
    log: LogTarget = NOMAD_LOG
    host_kernel: bool = False

    def encode(self) -> bytes:
        """Returns the handle's bytes."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return frames.pack({"v": VERSION, **fields, "log": dataclasses.asdict(self.log)})

    @classmethod
    def decode(cls, version: int, data: bytes) -> HandleState:
        """Reads a handle, and ignores fields that a newer release added.

        Args:
            version: as Nomad kept it.
            data: the bytes of `encode`.

        Raises:
            DriverError: `failed to decode task state from handle`, code CORRUPT or UNSUPPORTED.
        """
        if version < VERSION:
            raise DriverError(
                "failed to decode task state from handle",
                details=f"the handle has version {version}, this driver reads {VERSION}",
                resolution="stop the task and let Nomad start the task again",
                code=Code.UNSUPPORTED,
            )
        try:
            fields: dict[str, Any] = msgpack.unpackb(data, raw=False)
            kinds = {"started_at_ns": int, "pid": int, "log": dict, "host_kernel": bool}
            fields = {"log": {}, "host_kernel": False, **fields}
            facts: dict[str, Any] = {
                name: _checked(fields, name, kinds.get(name, str)) for name in cls.__slots__
            }
            facts["log"] = _log(facts["log"])
            return cls(**facts)
        except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
            raise DriverError(
                "failed to decode task state from handle",
                details=f"{type(error).__name__}: {error}",
                code=Code.CORRUPT,
            ) from error


def _log(fields: dict[str, Any]) -> LogTarget:
    """Reads the collector of the log; a missing field has its default."""
    kinds = {field.name: type(field.default) for field in dataclasses.fields(LogTarget)}
    known = {name: _checked(fields, name, kind) for name, kind in kinds.items() if name in fields}
    return LogTarget(**known)


def _checked(fields: dict[str, Any], name: str, kind: type) -> Any:
    value = fields[name]
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {type(value).__name__}, not {kind.__name__}")
    return value
