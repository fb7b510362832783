"""go-plugin's handshake: a private socket, and one line on stdout that names it.

No tempfile and no pathlib: the agent waits for this line three times at its own start.
"""

# ruff: noqa: PTH102, PTH106, PTH108

from __future__ import annotations

import contextlib
import os
import string

from plugin import environment

_CORE_VERSION = 1
_PROTOCOL_VERSION = 2
_STDOUT = 1
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
        self.socket = f"{self._directory}/plugin.sock"

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
        with contextlib.suppress(OSError):
            os.unlink(self.socket)
        with contextlib.suppress(OSError):
            os.rmdir(self._directory)


def _make_directory() -> str:
    """In $TMPDIR as Go's plugins do, elsewhere where that has no use as a socket's place."""
    name = f"nomad-cd-{os.urandom(8).hex()}"
    failure: OSError | None = None
    for parent in (environment.variable("TMPDIR"), "/tmp", "/run"):  # noqa: S108 - 0700
        path = f"{parent.rstrip('/')}/{name}"
        if not parent.startswith("/") or not _fits(f"{path}/plugin.sock"):
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
