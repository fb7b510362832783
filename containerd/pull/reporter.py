"""What a puller tells while it works, on stdout: progress now and then, notes in any case."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from containerd.pull.protocol import Progress
from proto import frames

if TYPE_CHECKING:
    from containerd.image.manifests import Descriptor

_REPORT_S = 0.2
_stdout_lock = threading.Lock()


def emit(frame: frames.Frame) -> None:
    """Writes one event whole."""
    data = memoryview(frames.encode(frame))
    with _stdout_lock:
        while data:
            data = data[os.write(1, data) :]


class Reporter:
    """Writes events to stdout, progress at most five times a second. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0.0
        self._phase = "resolving"
        self._done_bytes = self._total_bytes = self._layers_done = self._layers_total = 0

    def expect(self, layers: tuple[Descriptor, ...]) -> None:
        """The layers that are going to be fetched."""
        self._phase = "downloading"
        self._total_bytes = sum(layer.size for layer in layers)
        self._layers_total = len(layers)

    def got(self, count: int) -> None:
        """So many bytes more."""
        with self._lock:
            self._done_bytes += count
            self._report()

    def unpacked(self) -> None:
        """One layer more is in place."""
        with self._lock:
            self._phase = "unpacking"
            self._layers_done += 1
            self._report()

    def waits(self, waiting: str) -> None:
        """Nothing comes."""
        with self._lock:
            self._report(waiting)

    def note(self, text: str) -> None:
        """Something that the task's events are to have in any case."""
        emit({"event": "note", "text": text})

    def _report(self, waiting: str = "") -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _REPORT_S
            progress = Progress(
                phase=self._phase,
                done_bytes=self._done_bytes,
                total_bytes=self._total_bytes,
                layers_done=self._layers_done,
                layers_total=self._layers_total,
                waiting=waiting,
            )
            emit(progress.to_wire())
