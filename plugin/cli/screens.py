"""Screens without a terminal: plain lines and JSON lines."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import defaultdict
from typing import Any

from actors.model.nomad import ExitResult, PortMapping, TaskUsage
from plugin.cli.output_stream import Outlet
from plugin.host.agent.log_reader import Lines
from plugin.host.network.ports import inside
from plugin.host.run.screen import Screen, describe, published, used
from plugin.texts import one_line


class PlainScreen:
    """Logs go to stdout and stderr byte for byte as the task wrote them; the rest to stderr.

    Of several tasks each line stays whole and has the task's name before it; only there a line that
    is longer than 64 KiB, or has no end, may get one, where another task's line follows.

    Args:
        prefix: True puts the task's name before each of its lines.
    """

    def __init__(self, *, prefix: bool) -> None:
        self._prefix = prefix
        self._err = Outlet(sys.stderr)
        self._out = Outlet(sys.stdout, self._err)
        self._lines: defaultdict[tuple[str, str], Lines] = defaultdict(Lines)
        self._begun: tuple[str, str] | None = None

    def note(self, text: str) -> None:
        """See `Screen`."""
        self._err.say(text)

    def event(self, task: str, text: str) -> None:
        """See `Screen`."""
        self._err.say(f"{task}: {text}")

    def log(self, task: str, stream: str, data: bytes) -> None:
        """See `Screen`."""
        if not self._prefix:
            self._outlet(stream).put(data)
            return
        for line in self._lines[task, stream].feed(data):
            self._line(task, stream, line)

    def log_ended(self, task: str, stream: str) -> None:
        """See `Screen`."""
        for line in self._lines[task, stream].end():
            self._line(task, stream, line)

    def _line(self, task: str, stream: str, line: bytes) -> None:
        outlet = self._outlet(stream)
        if not outlet.place.amid_a_line or self._begun != (task, stream):
            outlet.begin_a_line()
            outlet.put(f"{one_line(task)} | ".encode())
        outlet.put(line)
        self._begun = (task, stream)

    def has_room(self, stream: str) -> bool:
        """See `Screen`."""
        return self._outlet(stream).flush()

    def _outlet(self, stream: str) -> Outlet:
        return self._out if stream == "stdout" else self._err

    def stats(self, task: str, usage: TaskUsage) -> None:
        """See `Screen`."""
        self._err.say(f"{task}: {used(usage)}")

    def port(self, alloc: str, port: PortMapping) -> None:
        """See `Screen`."""
        self.note(published(alloc, port))

    def ended(self, task: str, result: ExitResult, seconds: float) -> None:
        """See `Screen`."""
        self._err.say(f"{task}: {describe(result)} after {seconds:.1f} s")

    def error(self, text: str) -> None:
        """See `Screen`."""
        self._err.say(f"error: {text}")

    def close(self) -> bool:
        """See `Screen`."""
        return self._out.end() & self._err.end()


class JsonScreen:
    """One JSON object per line on stdout.

    `kind` is note, port, event, log, stats, exit or error. A log line is `partial` where it goes on
    in the next object, as each 64 KiB of a long one, or ends without a newline.
    """

    def __init__(self) -> None:
        self._lines: defaultdict[tuple[str, str], Lines] = defaultdict(Lines)
        self._out = Outlet(sys.stdout, Outlet(sys.stderr))

    def note(self, text: str) -> None:
        """See `Screen`."""
        self._write(kind="note", text=text)

    def event(self, task: str, text: str) -> None:
        """See `Screen`."""
        self._write(kind="event", task=task, text=text)

    def log(self, task: str, stream: str, data: bytes) -> None:
        """See `Screen`."""
        self._log(task, stream, self._lines[task, stream].feed(data))

    def log_ended(self, task: str, stream: str) -> None:
        """See `Screen`."""
        self._log(task, stream, self._lines[task, stream].end())

    def _log(self, task: str, stream: str, lines: list[bytes]) -> None:
        for line in lines:
            text = line.removesuffix(b"\n").decode(errors="replace")
            more = {} if line.endswith(b"\n") else {"partial": True}
            self._write(kind="log", task=task, stream=stream, line=text, **more)

    def has_room(self, stream: str) -> bool:  # noqa: ARG002 - both are one
        """See `Screen`."""
        return self._out.flush()

    def stats(self, task: str, usage: TaskUsage) -> None:
        """See `Screen`."""
        self._write(
            kind="stats",
            task=task,
            cpu_percent=round(usage.cpu.percent, 2),
            memory_bytes=usage.memory.usage,
            rss_bytes=usage.memory.rss,
            throttled_ns=usage.cpu.throttled_ns,
        )

    def port(self, alloc: str, port: PortMapping) -> None:
        """See `Screen`."""
        self._write(
            kind="port",
            alloc=alloc,
            label=port.label,
            host_ip=port.host_ip,
            port=port.value,
            to=inside(port),
        )

    def ended(self, task: str, result: ExitResult, seconds: float) -> None:
        """See `Screen`."""
        self._write(
            kind="exit",
            task=task,
            exit_code=result.exit_code,
            signal=result.signal,
            oom_killed=result.oom_killed,
            error=result.error,
            seconds=round(seconds, 3),
        )

    def error(self, text: str) -> None:
        """See `Screen`."""
        self._write(kind="error", text=text)

    def close(self) -> bool:
        """See `Screen`."""
        return self._out.end()

    def _write(self, **fields: Any) -> None:
        self._out.say(json.dumps({"time": round(time.time(), 3), **fields}))


def choose(*, as_json: bool, prefix: bool) -> Screen:
    """JSON where it was asked for, colours on a terminal where `rich` is there, else plain."""
    if as_json:
        return JsonScreen()
    if sys.stdout.isatty():
        with contextlib.suppress(ImportError):
            from plugin.cli.terminal_screen import TerminalScreen  # noqa: PLC0415 - rich may be missing

            return TerminalScreen(prefix=prefix)
    return PlainScreen(prefix=prefix)
