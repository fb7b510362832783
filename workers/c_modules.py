"""Sockets and signals by the C half of the `socket` and `signal` modules alone.

The Python half of both modules turns every constant into an enumeration, and each accept of a
worker would run this code.
"""

from __future__ import annotations

from _signal import SIG_DFL, SIG_IGN, SIGCHLD, SIGKILL, SIGTERM, SIGUSR1, pidfd_send_signal, signal  # type: ignore[import-not-found]
from _socket import (
    AF_UNIX,
    SCM_RIGHTS,
    SO_PEERCRED,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
    socketpair,
)

__all__ = [
    "AF_UNIX",
    "SCM_RIGHTS",
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
    "datagram",
    "pidfd_send_signal",
    "signal",
    "socket",
    "socketpair",
    "stream",
]


def stream() -> socket:
    """Creates a unix stream socket, which executed programs do not inherit."""
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)


def datagram() -> socket:
    """Creates a unix datagram socket, which never waits."""
    return socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK)


def accept(listener: socket) -> socket:
    """Accepts the next connection.

    Raises:
        OSError: no connection waits, or the peer is gone.
    """
    descriptor, _ = listener._accept()  # type: ignore[attr-defined] # noqa: SLF001 - all it has
    return socket(fileno=descriptor)
