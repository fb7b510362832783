"""Exit record of a task: a small versioned file for the plugin and for a replacement worker.

A record exists whole or not at all, and is on the disk when `write` returns: the worker writes a
file beside the record, syncs and renames the file, and syncs the directory. The worker reserves the
file at the start of the worker, so every running worker can write the exit of the task.
"""

from __future__ import annotations

import os

import msgpack

from proto import frames
from proto.errors import Code, DriverError
from proto.exhaustion import advice, exhausted
from workers import protocol
from workers.protocol import ExitRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = 1
"""Version of the records. A new field is no new version: older readers ignore the field."""

_MAX_BYTES = 65536
_RESERVED_BYTES = 4096


class ReservedFile:
    """A file and a descriptor reserved for a record.

    So neither a full disk nor a lack of descriptors can lose an exit.

    Args:
        directory: descriptor of the directory.
        name: name of the record in the directory.

    Raises:
        OSError: no space or no descriptor is left.
    """

    def __init__(self, directory: int, name: str) -> None:
        self._directory = directory
        self._name = name
        self._file = os.open(f"{name}.new", _NEW_FILE, 0o600, dir_fd=directory)
        try:
            os.posix_fallocate(self._file, 0, _RESERVED_BYTES)
        except OSError:
            self.close()
            raise

    def write(self, fields: Mapping[str, object]) -> None:
        """Writes the record, atomically and durably, and closes the reserved file.

        Raises:
            DriverError: code EXHAUSTED; the caller may try again.
        """
        try:
            self._write(frames.pack({"v": VERSION, **fields}))
        except OSError as error:
            raise exhausted(
                f"cannot write the record {self._name!r} to the task's state directory",
                error,
                resolution="free space in the driver's state_dir",
                code=Code.EXHAUSTED,
            ) from error
        self.close()

    def _write(self, body: bytes) -> None:
        new, directory = f"{self._name}.new", self._directory
        if not os.access(new, os.F_OK, dir_fd=directory, follow_symlinks=False):
            # The reserved file was deleted, and a file without a name cannot be renamed.
            self.close()
            self._file = os.open(new, _NEW_FILE, 0o600, dir_fd=directory)
        _write_all(self._file, body)
        os.ftruncate(self._file, len(body))
        os.fsync(self._file)
        os.rename(new, self._name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)

    def close(self) -> None:
        """Closes the descriptor."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def reserve_exit(directory: int) -> ReservedFile:
    """Reserves the exit record's file in the task's state directory.

    Args:
        directory: descriptor of the task's state directory.

    Raises:
        OSError: no space or no descriptor is left.
    """
    return ReservedFile(directory, protocol.EXIT_RECORD)


def read_exit(directory: str) -> ExitRecord | None:
    """Reads the exit recorded in a task's state directory; None without a record.

    Raises:
        DriverError: as `read`; CORRUPT also for a missing field.
    """
    fields = read(directory, protocol.EXIT_RECORD)
    return None if fields is None else ExitRecord.from_wire(fields)


def read(directory: str, name: str) -> dict[str, object] | None:
    """Reads the fields of a record, without the version; None without a record.

    Raises:
        DriverError: code CORRUPT, a malformed record; UNSUPPORTED, the version of a newer release;
            EXHAUSTED, no resources for the read are left.
    """
    path = f"{directory}/{name}"
    if not os.access(path, os.F_OK):  # usual; an exception would cost pages of every worker
        return None
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        if advice(error):  # the record may be fine
            raise exhausted(f"cannot read {path} now", error) from error
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


# Not truncated: the space that an earlier worker of the task reserved may be the last space left.
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


def _write_all(file: int, body: bytes) -> None:
    done = 0
    while done < len(body):
        done += os.pwrite(file, body[done:], done)


def _corrupt(path: str, details: str) -> DriverError:
    return DriverError(
        f"cannot read {path}",
        details=details,
        resolution="remove the file; the task is then reported as lost",
        code=Code.CORRUPT,
    )
