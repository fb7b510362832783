"""Plugins and runs that share a state directory. Each process has a file with a lock there.

The kernel drops the lock at the end of the process, for every kind of end. A pid in the file could
belong to another process later, and has no meaning in another pid namespace. The last complete line
of the file has the facts that the process publishes; a kill may leave an incomplete line.

    live/plugin-<16 hex>   a plugin; objects of the plugin in containerd have a label with the name
    live/run-<16 hex>      a `containerd-driver run`; the run's tasks have the name as node id
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Generator, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from actors.files.state_dir import make_private
from proto.errors import Code, DriverError
from proto.exhaustion import advice
from proto.values import dataclass
from workers import private_directory

DIRECTORY = "live"
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """File of a plugin or run.

    Attributes:
        name: name of the file.
        alive: True if the process lives.
        since: seconds of the epoch of the last publication.
        published: fields of the last publication; empty before the first publication.
    """

    name: str
    alive: bool
    since: float
    published: Mapping[str, Any] = field(default_factory=dict)


class Presence:
    """File of this process, from the constructor until `withdraw`. The methods block briefly.

    Args:
        state_dir: the state directory.
        kind: `PLUGIN` or `RUN` of `actors.model.ownership`, the begin of the name.

    Raises:
        DriverError: code EXHAUSTED; the file cannot be created. Code DENIED; another user can
            change the directory.
    """

    def __init__(self, state_dir: Path, kind: str) -> None:
        self.name = f"{kind}{secrets.token_hex(8)}"
        self._path = state_dir / DIRECTORY / self.name
        try:
            make_private(state_dir)
            make_private(self._path.parent)
            self._file = _create(self._path)
        except OSError as error:
            raise _not_writable(self._path.parent, error) from error

    def publish(self, **fields: Any) -> None:
        """Publishes facts for other processes. The fields replace all earlier fields.

        Raises:
            DriverError: code EXHAUSTED.
        """
        line = json.dumps({"pid": os.getpid(), **fields}, separators=(",", ":"))
        before = os.fstat(self._file).st_size
        try:
            _write_all(self._file, f"{line}\n".encode())
        except OSError as error:
            # The earlier publication stays the last complete line.
            os.ftruncate(self._file, before)
            raise _not_writable(self._path, error) from error

    def withdraw(self) -> None:
        """Removes the file: this process leaves no object behind."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        self.close()

    def close(self) -> None:
        """Closes the file and drops the lock, as a death does. The published facts stay."""
        os.close(self._file)


def peers(state_dir: Path) -> tuple[Peer, ...]:
    """Lists the plugins and runs, live and dead. Blocks briefly.

    Raises:
        DriverError: code DENIED; another user can change the state directory.
    """
    try:
        private_directory.check(str(state_dir))
        names = sorted(os.listdir(state_dir / DIRECTORY))  # noqa: PTH208 - only names are needed
    except OSError:
        return ()
    entries = (_read(state_dir / DIRECTORY / name) for name in names)
    return tuple(peer for peer in entries if peer is not None)


def remove(state_dir: Path, name: str) -> bool:
    """Removes a dead peer's file. False if the peer lives; True if the file is already gone."""
    path = state_dir / DIRECTORY / name
    if not os.path.lexists(path):
        return True
    with seized(state_dir, name) as dead:
        if dead:
            path.unlink(missing_ok=True)
    return dead


@contextlib.contextmanager
def seized(state_dir: Path, name: str) -> Generator[bool, None, None]:
    """Locks a dead peer's file inside the block, so that no other process cleans up for the peer.

    Other processes see a live peer meanwhile.

    Yields:
        False if the peer lives, or if another process has cleaned up.
    """
    try:
        file = os.open(state_dir / DIRECTORY / name, _FLAGS)
    except OSError:
        yield False
        return
    try:
        yield _locked(file)
    finally:
        os.close(file)


def _write_all(file: int, data: bytes) -> None:
    """Writes all data. A disk that becomes full takes a part and reports no error."""
    while data:
        data = data[os.write(file, data) :]


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(file).st_nlink > 0


def _read(path: Path) -> Peer | None:
    try:
        file = os.open(path, _FLAGS)
    except OSError:
        return None
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            alive = False
        except BlockingIOError:
            alive = True
        since = os.fstat(file).st_mtime
        return Peer(name=path.name, alive=alive, since=since, published=_last(file))
    except OSError:
        return None
    finally:
        os.close(file)


def _last(file: int) -> Mapping[str, Any]:
    """Returns the last complete line that is a JSON object."""
    text = os.pread(file, _MAX_BYTES, max(0, os.fstat(file).st_size - _MAX_BYTES))
    for line in reversed(text.split(b"\n")[:-1]):
        with contextlib.suppress(ValueError):
            fields = json.loads(line)
            if isinstance(fields, dict):
                return fields
    return {}


def _create(path: Path) -> int:
    """Creates and locks a file. Repeats if another process removed the file before the lock."""
    while True:
        file = os.open(path, _FLAGS | os.O_CREAT | os.O_APPEND, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        os.close(file)


def _not_writable(path: Path, error: OSError) -> DriverError:
    return DriverError(
        f"cannot write to the driver's state directory: {path}",
        details=error.strerror or str(error),
        resolution=advice(error) or "run as root, or set state_dir in the plugin block",
        recoverable=bool(advice(error)),
        code=Code.EXHAUSTED,
    )
