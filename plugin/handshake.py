"""go-plugin's handshake: a private socket, and one line on stdout that names it."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

_CORE_VERSION = 1
_PROTOCOL_VERSION = 2


class Rendezvous:
    """The directory, 0700, and the socket in it that the agent dials."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="nomad-cd-"))
        self.socket = self._directory / "plugin.sock"

    def announce(self) -> None:
        """Prints the handshake, once the server listens: the agent dials at once.

        Afterwards stdout is /dev/null: a host that stops reading would block a writer.
        """
        line = f"{_CORE_VERSION}|{_PROTOCOL_VERSION}|unix|{self.socket}|grpc|\n"
        with contextlib.suppress(BrokenPipeError):
            os.write(sys.stdout.fileno(), line.encode())
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)

    def remove(self) -> None:
        """Removes socket and directory."""
        shutil.rmtree(self._directory, ignore_errors=True)
