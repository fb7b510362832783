"""What a child of the launcher does with its connection: it answers, or becomes a task's worker.

Apart from the launcher, as it is rehearsed: what runs for the first time costs each worker pages.
"""

from __future__ import annotations

import gc
import os

from proto import frames
from proto.errors import DriverError
from workers import control, procfs, protocol, task_worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from proto.frames import Frame
    from workers import c_modules
    from workers.task_worker import Worker

FAILED = 1
"""The exit status of a child that was asked nothing, or whose task cannot be looked after."""
_REQUEST_TIMEOUT_S = 10.0
_CHUNK_BYTES = 4096


def serve(
    sock: c_modules.socket,
    answer: Callable[[Frame], Frame],
    closes: tuple[int, int],
    made: Callable[[Worker], None] | None = None,
) -> int:
    """Reads the first request and does what it asks; returns the process's exit status.

    Args:
        sock: becomes a worker's first control connection.
        answer: what a request that is not for a worker gets.
        closes: the first of the descriptors that a worker does not keep, and the first that it
            does again.
        made: called with the worker before it begins.
    """
    decoder = frames.Decoder()
    try:
        request = _receive(sock, decoder)
        if request is None:
            return FAILED
        if request.get("op") != protocol.FORK:
            _send(sock, answer(request))
            return 0
        protocol.agree(request)
    except DriverError as error:
        control.say_failed(sock, error)
        return 0
    first, end = closes
    os.closerange(first, sock.fileno())
    os.closerange(sock.fileno() + 1, end)
    gc.enable()
    procfs.new_session()
    procfs.set_name(procfs.WORKER)
    return task_worker.run(request.get("spec"), sock, decoder, made)


def _receive(sock: c_modules.socket, decoder: frames.Decoder) -> Frame | None:
    """The first request, or None when nobody asks anything."""
    sock.settimeout(_REQUEST_TIMEOUT_S)
    try:
        while data := sock.recv(_CHUNK_BYTES):
            for frame in decoder.feed(data):
                return frame
    except OSError:
        return None
    return None


def _send(sock: c_modules.socket, frame: Frame) -> None:
    try:
        sock.sendall(frames.encode(frame))
    except OSError:
        return  # who asked is gone
