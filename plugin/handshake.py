"""go-plugin's handshake: a private socket, and a line on stdout with the socket's path.

The module imports neither tempfile nor pathlib: an agent starts the plugin three times at its own
start, and waits for the line each time.
"""

# ruff: noqa: PTH102, PTH106, PTH108

from __future__ import annotations

import contextlib
import errno
import os
import socket
import string

from plugin import environment

_CORE_VERSION = 1
_PROTOCOL_VERSION = 2
_STDOUT = 1
_PREFIX, _SOCKET = "nomad-cd-", "plugin.sock"
# sockaddr_un.sun_path has 108 bytes.
_MAX_PATH = 107
# Other characters have a meaning in the handshake line (|), in gRPC's target (%, ?, #) or in a log.
_PLAIN = frozenset(string.ascii_letters + string.digits + "/._-+~@")


class Rendezvous:
    """A directory with mode 0700, and the path of the socket in the directory.

    Raises:
        OSError: no directory can be created.
    """

    def __init__(self) -> None:
        self._directory = _make_directory()
        self.socket = f"{self._directory}/{_SOCKET}"

    def announce(self) -> None:
        """Prints the handshake line and turns stdout into /dev/null.

        The server must listen before: the agent dials at once. A later write to stdout would block
        as soon as the agent stops reading.
        """
        line = f"{_CORE_VERSION}|{_PROTOCOL_VERSION}|unix|{self.socket}|grpc|\n"
        with contextlib.suppress(BrokenPipeError):
            os.write(_STDOUT, line.encode())
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, _STDOUT)
        os.close(null)

    def remove(self) -> None:
        """Removes socket and directory; a second call does nothing."""
        _remove(self._directory)

    def sweep(self) -> None:
        """Removes directories of killed plugins: a connection to their socket is refused."""
        parent = os.path.dirname(self._directory)  # noqa: PTH120
        with contextlib.suppress(OSError), os.scandir(parent) as entries:
            for entry in entries:
                if entry.name.startswith(_PREFIX) and entry.is_dir(follow_symlinks=False):
                    _remove_if_dead(entry)


def _remove(directory: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(f"{directory}/{_SOCKET}")
    with contextlib.suppress(OSError):
        os.rmdir(directory)


def _remove_if_dead(entry: os.DirEntry[str]) -> None:
    with contextlib.suppress(OSError):
        if entry.stat(follow_symlinks=False).st_uid != os.geteuid():
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            # A directory without a socket belongs to a plugin that starts or ends right now.
            if sock.connect_ex(f"{entry.path}/{_SOCKET}") == errno.ECONNREFUSED:
                _remove(entry.path)


def _make_directory() -> str:
    """Creates a directory in $TMPDIR as Go's plugins do, or in /tmp or /run.

    A socket's path must be short and plain, so not every $TMPDIR serves.
    """
    name = f"{_PREFIX}{os.urandom(8).hex()}"
    failure: OSError | None = None
    for parent in (environment.variable("TMPDIR"), "/tmp", "/run"):  # noqa: S108 - 0700
        path = f"{parent.rstrip('/')}/{name}"
        if not parent.startswith("/") or not _fits(f"{path}/{_SOCKET}"):
            continue
        try:
            os.mkdir(path, 0o700)
        except OSError as error:
            failure = error
        else:
            return path
    raise failure or OSError("cannot create a directory for the plugin's socket")


def _fits(path: str) -> bool:
    return len(path) <= _MAX_PATH and _PLAIN.issuperset(path)
