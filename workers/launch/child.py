"""First steps of the launcher's forked child, which answers a request or becomes a task's worker.

The launcher's warm-up runs this module too: code that runs for the first time after the fork costs
each worker pages.
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
"""Exit status of a child without a request, or without a working set-up of the worker."""
_REQUEST_TIMEOUT_S = 10.0
_CHUNK_BYTES = 4096


def serve(
    sock: c_modules.socket,
    answer: Callable[[Frame], Frame],
    closes: tuple[int, int],
    created: Callable[[Worker], None] | None = None,
) -> int:
    """Reads the first request, and answers or runs the worker.

    Args:
        sock: the connection; becomes the first control connection of a worker.
        answer: returns the answer to a request other than fork.
        closes: first descriptor that a worker closes, and the descriptor after the last one.
        created: called with the worker before the worker's loop runs.

    Returns:
        The exit status of the process.
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
        control.send_failed(sock, error)
        return 0
    first, end = closes
    os.closerange(first, sock.fileno())
    os.closerange(sock.fileno() + 1, end)
    gc.enable()
    procfs.new_session()
    procfs.set_name(procfs.WORKER)
    return task_worker.run(request.get("spec"), sock, decoder, created)


def _receive(sock: c_modules.socket, decoder: frames.Decoder) -> Frame | None:
    """Receives the first request; None if the peer sends none in time."""
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
        return  # the peer is gone
