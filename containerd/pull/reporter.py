"""Events of a working puller on stdout: progress, notes and finished steps."""

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
    """Writes one whole event."""
    data = memoryview(frames.encode(frame))
    with _stdout_lock:
        while data:
            data = data[os.write(1, data) :]


class Reporter:
    """Writer of events to stdout. Threads may share an instance."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0.0
        self._began = time.monotonic()
        self._phase = "resolving"
        self._done_bytes = self._total_bytes = self._layers_done = self._layers_total = 0

    def expect(self, layers: tuple[Descriptor, ...]) -> None:
        """Sets the layers whose download begins."""
        self._phase = "downloading"
        self._total_bytes = sum(layer.size for layer in layers)
        self._layers_total = len(layers)

    def received(self, count: int) -> None:
        """Counts received bytes; a negative count takes back the bytes of a failed attempt."""
        with self._lock:
            self._done_bytes += count
            self._report()

    def unpacked(self) -> None:
        """Counts one more unpacked layer."""
        with self._lock:
            self._phase = "unpacking"
            self._layers_done += 1
            self._report()

    def waiting(self, text: str) -> None:
        """Writes a progress event with the text of a wait, at most five times a second."""
        with self._lock:
            self._report(text)

    def note(self, text: str) -> None:
        """Writes a text that must become a task event, at once."""
        emit({"event": "note", "text": text})

    def step(self, name: str) -> None:
        """Reports a finished step, with the time since the begin of the pull, for the log.

        Args:
            name: a statement, such as "image chosen".
        """
        elapsed_ms = round((time.monotonic() - self._began) * 1000)
        emit({"event": "step", "step": name, "elapsed_ms": elapsed_ms})

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
