"""Ports of loopback that no earlier server of this process has had.

A registry's address is part of an image's name. containerd may still have the image of an earlier
test, and a pull of that name would find the image.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_taken: set[int] = set()


def fresh(make: Callable[[], T], port_of: Callable[[T], int], close: Callable[[T], object]) -> T:
    """Makes servers on ports of the kernel's choice until a port is new, and returns the last.

    Args:
        make: makes a server.
        port_of: returns the server's port.
        close: closes a server whose port is not new.
    """
    with contextlib.ExitStack() as refused:
        while True:
            made = make()
            port = port_of(made)
            if is_new(port):
                _taken.add(port)
                return made
            refused.callback(close, made)


def is_new(port: int) -> bool:
    """Returns whether no server of this process has had the port."""
    return port not in _taken


def listener() -> socket.socket:
    """Returns a listening socket on a new port."""
    return fresh(
        lambda: socket.create_server(("127.0.0.1", 0)),
        lambda made: int(made.getsockname()[1]),
        socket.socket.close,
    )


def free_port() -> int:
    """Returns a new port that was free a moment ago."""
    with listener() as probe:
        port: int = probe.getsockname()[1]
        return port
