"""Probe inside a measured plugin process: the longest pause of the event loop and of the collector.

SIGUSR2 makes the plugin write the figures since the last signal, as JSON, into a file.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from tests.support.plugin.plugin_dir import ROOT
from tests.support.waiting import until

_PERIOD_S = 0.005
_WRITTEN_S = 30.0
_SCRIPT = """\
#!{python} -I
import sys
sys.path.insert(0, {root!r})
from tests.support.plugin import loop_probe
loop_probe.install({file!r})
from plugin.main import main
sys.exit(main())
"""


def probed(program: Path, python: str) -> Path:
    """Rewrites the program of a plugin directory with the probe; returns the file of figures."""
    file = program.with_suffix(".figures")
    program.write_text(_SCRIPT.format(python=python, root=str(ROOT), file=str(file)))
    return file


async def figures(pid: int, file: Path) -> dict[str, float]:
    """Returns the figures since the last call: `pause_ms`, `gc_ms` and `threads`."""
    file.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR2)
    await until(file.exists, _WRITTEN_S, "the plugin writes no figures")
    read: dict[str, float] = json.loads(file.read_text())
    return read


def install(file: str) -> None:
    """Measures every event loop of this process. Runs inside the plugin, before its main."""
    asyncio.set_event_loop_policy(_Policy(Path(file)))


class _Policy(asyncio.DefaultEventLoopPolicy):
    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        loop = super().new_event_loop()
        loop.call_soon(_Beat(loop, self._file).begin)
        return loop


class _Beat:
    """A timer whose delay is the pause of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, file: Path) -> None:
        self._loop = loop
        self._file = file
        self._pause_s = self._gc_s = self._collecting = 0.0
        self._due = 0.0

    def begin(self) -> None:
        self._loop.add_signal_handler(signal.SIGUSR2, self._write)
        gc.callbacks.append(self._collector)
        self._next()

    def _next(self) -> None:
        now = time.perf_counter()
        if self._due:
            self._pause_s = max(self._pause_s, now - self._due)
        self._due = now + _PERIOD_S
        self._loop.call_later(_PERIOD_S, self._next)

    def _collector(self, phase: str, _: dict[str, Any]) -> None:
        now = time.perf_counter()
        if phase == "start":
            self._collecting = now
        else:
            self._gc_s = max(self._gc_s, now - self._collecting)

    def _write(self) -> None:
        threads = sum(1 for _ in Path("/proc/self/task").iterdir())
        told = {"pause_ms": self._pause_s * 1e3, "gc_ms": self._gc_s * 1e3, "threads": threads}
        written = self._file.with_suffix(".new")
        written.write_text(json.dumps(told))
        written.rename(self._file)
        self._pause_s = self._gc_s = 0.0
