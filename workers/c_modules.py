"""Sockets and signals by the C half of their modules alone.

Python's own half of `socket` and `signal` turns every constant into an enumeration, and a worker
would go through that at each accept.
"""

from __future__ import annotations

from _signal import SIG_DFL, SIG_IGN, SIGCHLD, SIGKILL, SIGTERM, SIGUSR1, pidfd_send_signal, signal  # type: ignore[import-not-found]
from _socket import (
    AF_UNIX,
    SO_PEERCRED,
    SOCK_CLOEXEC,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
    socketpair,
)

__all__ = [
    "AF_UNIX",
    "SIGCHLD",
    "SIGKILL",
    "SIGTERM",
    "SIGUSR1",
    "SIG_DFL",
    "SIG_IGN",
    "SOCK_CLOEXEC",
    "SOL_SOCKET",
    "SO_PEERCRED",
    "accept",
    "pidfd_send_signal",
    "signal",
    "socket",
    "socketpair",
    "stream",
]


def stream() -> socket:
    """A new unix stream socket, not inherited by programs that are executed."""
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)


def accept(listener: socket) -> socket:
    """The next connection.

    Raises:
        OSError: there is none, or it is gone.
    """
    descriptor, _ = listener._accept()  # type: ignore[attr-defined] # noqa: SLF001 - all it has
    return socket(fileno=descriptor)
