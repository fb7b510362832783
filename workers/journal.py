"""What a worker leaves on disk for the plugin and for its own successor: small versioned records.

A record is there whole or not at all, and is on the disk when `write` returns: written beside its
place, synced, renamed over it, and the directory synced.
"""

from __future__ import annotations

import os

import msgpack

from proto import frames
from proto.errors import Code, DriverError
from workers import wire
from workers.wire import ExitRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = 1
"""Of the records. A new field is no new version: who does not know it passes it over."""

_MAX_BYTES = 65536


def write_exit(directory: int, record: ExitRecord) -> None:
    """Keeps the task's exit in its state directory, given as a descriptor.

    Raises:
        DriverError: code EXHAUSTED, the disk does not take it.
    """
    write(directory, wire.EXIT_RECORD, record.to_wire())


def read_exit(directory: str) -> ExitRecord | None:
    """The exit recorded in a task's state directory; None when there is none.

    Raises:
        DriverError: code CORRUPT, there is one that cannot be read.
    """
    fields = read(directory, wire.EXIT_RECORD)
    return None if fields is None else ExitRecord.from_wire(fields)


def write(directory: int, name: str, fields: Mapping[str, object]) -> None:
    """Puts a record in place, atomically and durably.

    Raises:
        DriverError: code EXHAUSTED.
    """
    body = frames.pack({"v": VERSION, **fields})
    try:
        file = os.open(f"{name}.new", _NEW_FILE, 0o600, dir_fd=directory)
        try:
            _write_all(file, body)
            os.fsync(file)
        finally:
            os.close(file)
        os.rename(f"{name}.new", name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)
    except OSError as error:
        raise DriverError(
            f"the record {name!r} cannot be written to the task's state directory",
            details=str(error),
            resolution="free space in the driver's state_dir",
            recoverable=True,
            code=Code.EXHAUSTED,
        ) from error


def read(directory: str, name: str) -> dict[str, object] | None:
    """A record's fields, without its version; None when there is no such record.

    Raises:
        DriverError: code CORRUPT, or UNSUPPORTED for a version of a newer release.
    """
    path = f"{directory}/{name}"
    if not os.access(path, os.F_OK):  # the rule; an exception would cost pages of every worker
        return None
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _corrupt(path, str(error)) from error
    try:
        fields = msgpack.unpackb(os.read(file, _MAX_BYTES), raw=False)
    except (OSError, ValueError, msgpack.UnpackException) as error:
        raise _corrupt(path, str(error)) from error
    finally:
        os.close(file)
    if not isinstance(fields, dict):
        raise _corrupt(path, "not a map")
    version = fields.pop("v", None)
    if not isinstance(version, int) or version < 1:
        raise _corrupt(path, "no version")
    if version > VERSION:
        raise DriverError(
            f"{path} was written by a newer release of the driver",
            details=f"record version {version}, this release reads up to {VERSION}",
            resolution="install the newer release again",
            code=Code.UNSUPPORTED,
        )
    return fields


_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW


def _write_all(file: int, body: bytes) -> None:
    view = memoryview(body)
    while view:
        view = view[os.write(file, view) :]


def _corrupt(path: str, details: str) -> DriverError:
    return DriverError(
        f"{path} cannot be read",
        details=details,
        resolution="remove the file; the task counts as lost",
        code=Code.CORRUPT,
    )
