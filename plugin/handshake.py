"""go-plugin's handshake: a private socket, and one line on stdout that names it.

No tempfile and no pathlib: the agent waits for this line three times at its own start.
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
# Others have a meaning in the handshake line (|), in gRPC's target (%, ?, #), or in a log.
_PLAIN = frozenset(string.ascii_letters + string.digits + "/._-+~@")


class Rendezvous:
    """The directory, 0700, and the socket in it that the agent dials.

    Raises:
        OSError: there is no place for it.
    """

    def __init__(self) -> None:
        self._directory = _make_directory()
        self.socket = f"{self._directory}/{_SOCKET}"

    def announce(self) -> None:
        """Prints the handshake, once the server listens: the agent dials at once.

        Afterwards stdout is /dev/null: a host that stops reading would block a writer.
        """
        line = f"{_CORE_VERSION}|{_PROTOCOL_VERSION}|unix|{self.socket}|grpc|\n"
        with contextlib.suppress(BrokenPipeError):
            os.write(_STDOUT, line.encode())
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, _STDOUT)
        os.close(null)

    def remove(self) -> None:
        """Removes socket and directory; again is fine."""
        _remove(self._directory)

    def sweep(self) -> None:
        """Removes the directories of plugins that were killed: whose socket nobody listens at."""
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
            # One without a socket is about to listen, or lives for a moment only.
            if sock.connect_ex(f"{entry.path}/{_SOCKET}") == errno.ECONNREFUSED:
                _remove(entry.path)


def _make_directory() -> str:
    """In $TMPDIR as Go's plugins do, elsewhere where that has no use as a socket's place."""
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
    raise failure or OSError("no directory for the plugin's socket")


def _fits(path: str) -> bool:
    return len(path) <= _MAX_PATH and _PLAIN.issuperset(path)
