"""What a worker leaves on disk for the plugin and for its own successor: small versioned records.

A record is there whole or not at all, and is on the disk when `write` returns: written beside its
place, synced, renamed over it, and the directory synced. The room for it is taken when the worker
begins, so a worker that begins has a place for its task's exit.
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
"""Of the records. A new field is no new version: who does not know it passes it over."""

_MAX_BYTES = 65536
_ROOM_BYTES = 4096


class Place:
    """Room for one record, taken before there is one.

    Neither a disk that fills meanwhile nor a lack of descriptors keeps the record away then.

    Args:
        directory: descriptor of the directory.
        name: of the record in it.

    Raises:
        OSError: there is no room now.
    """

    def __init__(self, directory: int, name: str) -> None:
        self._directory = directory
        self._name = name
        self._file = os.open(f"{name}.new", _NEW_FILE, 0o600, dir_fd=directory)
        try:
            os.posix_fallocate(self._file, 0, _ROOM_BYTES)
        except OSError:
            self.close()
            raise

    def write(self, fields: Mapping[str, object]) -> None:
        """Puts the record in place, atomically and durably, and lets the room go.

        Raises:
            DriverError: code EXHAUSTED; it may be tried again.
        """
        try:
            self._write(frames.pack({"v": VERSION, **fields}))
        except OSError as error:
            raise DriverError(
                f"the record {self._name!r} cannot be written to the task's state directory",
                details=str(error),
                resolution="free space in the driver's state_dir",
                recoverable=True,
                code=Code.EXHAUSTED,
            ) from error
        self.close()

    def _write(self, body: bytes) -> None:
        new, directory = f"{self._name}.new", self._directory
        if not os.access(new, os.F_OK, dir_fd=directory, follow_symlinks=False):
            # Somebody tidied up: what has no name cannot be renamed.
            self.close()
            self._file = os.open(new, _NEW_FILE, 0o600, dir_fd=directory)
        _write_all(self._file, body)
        os.ftruncate(self._file, len(body))
        os.fsync(self._file)
        os.rename(new, self._name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)

    def close(self) -> None:
        """Gives the descriptor back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def place_of_exit(directory: int) -> Place:
    """Room for the task's exit in its state directory, given as a descriptor.

    Raises:
        OSError: there is no room now.
    """
    return Place(directory, protocol.EXIT_RECORD)


def read_exit(directory: str) -> ExitRecord | None:
    """The exit recorded in a task's state directory; None when there is none.

    Raises:
        DriverError: code CORRUPT, there is one that cannot be read.
    """
    fields = read(directory, protocol.EXIT_RECORD)
    return None if fields is None else ExitRecord.from_wire(fields)


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
        if advice(error):  # it may be whole
            raise exhausted(f"{path} cannot be read now", error) from error
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


# Not emptied: what an earlier worker of the task had reserved may be the last there is.
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


def _write_all(file: int, body: bytes) -> None:
    done = 0
    while done < len(body):
        done += os.pwrite(file, body[done:], done)


def _corrupt(path: str, details: str) -> DriverError:
    return DriverError(
        f"{path} cannot be read",
        details=details,
        resolution="remove the file; the task counts as lost",
        code=Code.CORRUPT,
    )
