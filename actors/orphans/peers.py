"""Who lives among those that share a state directory: each holds a lock on a file of its own there.

The kernel drops the lock with its process, however that ends; a pid could be another process by
now, and tells nothing from within another pid namespace. The file's last whole line is what its
owner says of itself; a line that was cut short by a kill does not count.

    live/plugin-<16 hex>   a plugin: what it makes in containerd carries this name
    live/run-<16 hex>      a `containerd-driver run`: its tasks have this name for their node
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.files.state_dir import make_private
from proto.errors import Code, DriverError
from proto.exhaustion import advice
from workers import private_directory

DIRECTORY = "live"
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One file: its name, whether somebody holds it, and what its owner said last."""

    name: str
    alive: bool
    since: float
    says: Mapping[str, Any] = field(default_factory=dict)


class Presence:
    """This process among its peers, from its making until `leave`. Its methods block, not for long.

    Raises:
        DriverError: code EXHAUSTED; the state directory does not take the file. Code DENIED;
            another user can change the directory.
    """

    def __init__(self, state_dir: Path, kind: str) -> None:
        self.name = f"{kind}{secrets.token_hex(8)}"
        self._path = state_dir / DIRECTORY / self.name
        try:
            make_private(state_dir)
            make_private(self._path.parent)
            self._file = _held(self._path)
        except OSError as error:
            raise _no_place(self._path.parent, error) from error

    def say(self, **fields: Any) -> None:
        """Writes down what others are to know of this process.

        Raises:
            DriverError: code EXHAUSTED.
        """
        line = json.dumps({"pid": os.getpid(), **fields}, separators=(",", ":"))
        before = os.fstat(self._file).st_size
        try:
            _write_all(self._file, f"{line}\n".encode())
        except OSError as error:
            # What it said before stays its last word, also for what it says next.
            os.ftruncate(self._file, before)
            raise _no_place(self._path, error) from error

    def leave(self) -> None:
        """Removes the file: nothing of this process is left that others would have to know."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        self.close()

    def close(self) -> None:
        """Lets go of the file as a death would; what it says stays for others."""
        os.close(self._file)


def peers(state_dir: Path) -> tuple[Peer, ...]:
    """All that have a file, dead or alive. Blocks, not for long.

    Raises:
        DriverError: code DENIED; another user can change the state directory.
    """
    try:
        private_directory.check(str(state_dir))
        names = sorted(os.listdir(state_dir / DIRECTORY))  # noqa: PTH208 - names are wanted
    except OSError:
        return ()
    found = (_look(state_dir / DIRECTORY / name) for name in names)
    return tuple(peer for peer in found if peer is not None)


def forget(state_dir: Path, name: str) -> bool:
    """Removes the file of one that is dead; False where it lives. Gone is done."""
    path = state_dir / DIRECTORY / name
    if not os.path.lexists(path):
        return True
    with seized(state_dir, name) as dead:
        if dead:
            path.unlink(missing_ok=True)
    return dead


@contextlib.contextmanager
def seized(state_dir: Path, name: str) -> Generator[bool, None, None]:
    """Keeps others from sweeping up after a dead one; False where it lives, or is swept already.

    Meanwhile it counts as alive for everybody else.
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
    """A disk that fills takes a part and says nothing of it."""
    while data:
        data = data[os.write(file, data) :]


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(file).st_nlink > 0


def _look(path: Path) -> Peer | None:
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
        return Peer(name=path.name, alive=alive, since=since, says=_last(file))
    except OSError:
        return None
    finally:
        os.close(file)


def _last(file: int) -> Mapping[str, Any]:
    """The last line that is whole and a JSON object."""
    text = os.pread(file, _MAX_BYTES, max(0, os.fstat(file).st_size - _MAX_BYTES))
    for line in reversed(text.split(b"\n")[:-1]):
        with contextlib.suppress(ValueError):
            fields = json.loads(line)
            if isinstance(fields, dict):
                return fields
    return {}


def _held(path: Path) -> int:
    """A new file, locked; made again where somebody took it for a dead one's in between."""
    while True:
        file = os.open(path, _FLAGS | os.O_CREAT | os.O_APPEND, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        os.close(file)


def _no_place(place: Path, error: OSError) -> DriverError:
    return DriverError(
        f"cannot write to the driver's state directory: {place}",
        details=error.strerror or str(error),
        resolution=advice(error) or "run as root, or set state_dir in the plugin block",
        recoverable=bool(advice(error)),
        code=Code.EXHAUSTED,
    )
