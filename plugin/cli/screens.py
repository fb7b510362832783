"""Screens for files and pipes: plain lines and JSON lines."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import defaultdict
from typing import Any

from actors.model.nomad import ExitResult, PortMapping, TaskUsage
from plugin.cli.output_stream import OutputStream
from plugin.host.agent.log_reader import Lines
from plugin.host.network.ports import container_port
from plugin.host.run.screen import Screen, end_text, port_text, usage_text
from plugin.texts import one_line


class PlainScreen:
    """Plain lines: logs on stdout and stderr, other output on stderr.

    The log of a single task is copied byte by byte. With `prefix` each line of a log has the name
    of its task before it, and lines of several tasks do not mix. A line longer than 64 KiB, or
    without an end, may be broken there by a line of another task.

    Args:
        prefix: True puts the name of the task before each line of its log.
    """

    def __init__(self, *, prefix: bool) -> None:
        self._prefix = prefix
        self._err = OutputStream(sys.stderr)
        self._out = OutputStream(sys.stdout, self._err)
        self._lines: defaultdict[tuple[str, str], Lines] = defaultdict(Lines)
        self._current: tuple[str, str] | None = None

    def note(self, text: str) -> None:
        """See `Screen`."""
        self._err.write_line(text)

    def event(self, task: str, text: str) -> None:
        """See `Screen`."""
        self._err.write_line(f"{task}: {text}")

    def log(self, task: str, stream: str, data: bytes) -> None:
        """See `Screen`."""
        if not self._prefix:
            self._stream(stream).write(data)
            return
        for line in self._lines[task, stream].feed(data):
            self._line(task, stream, line)

    def log_ended(self, task: str, stream: str) -> None:
        """See `Screen`."""
        for line in self._lines[task, stream].end():
            self._line(task, stream, line)

    def _line(self, task: str, stream: str, line: bytes) -> None:
        output = self._stream(stream)
        if not output.cursor.in_line or self._current != (task, stream):
            output.end_line()
            output.write(f"{one_line(task)} | ".encode())
        output.write(line)
        self._current = (task, stream)

    def has_room(self, stream: str) -> bool:
        """See `Screen`."""
        return self._stream(stream).flush()

    def _stream(self, stream: str) -> OutputStream:
        return self._out if stream == "stdout" else self._err

    def stats(self, task: str, usage: TaskUsage) -> None:
        """See `Screen`."""
        self._err.write_line(f"{task}: {usage_text(usage)}")

    def port(self, alloc: str, port: PortMapping) -> None:
        """See `Screen`."""
        self.note(port_text(alloc, port))

    def ended(self, task: str, result: ExitResult, seconds: float) -> None:
        """See `Screen`."""
        self._err.write_line(f"{task}: {end_text(result)} after {seconds:.1f} s")

    def error(self, text: str) -> None:
        """See `Screen`."""
        self._err.write_line(f"error: {text}")

    def close(self) -> bool:
        """See `Screen`."""
        return self._out.end() & self._err.end()


class JsonScreen:
    """A JSON object per line on stdout.

    `kind` is note, port, event, log, stats, exit or error. A log line longer than 64 KiB comes in
    several objects. An object is `partial` if the newline is missing or follows in a later object.
    """

    def __init__(self) -> None:
        self._lines: defaultdict[tuple[str, str], Lines] = defaultdict(Lines)
        self._out = OutputStream(sys.stdout, OutputStream(sys.stderr))

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

    def has_room(self, stream: str) -> bool:  # noqa: ARG002 - stdout has both
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
            to=container_port(port),
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
        self._out.write_line(json.dumps({"time": round(time.time(), 3), **fields}))


def choose(*, as_json: bool, prefix: bool) -> Screen:
    """Returns a screen: JSON lines if wanted; colours if stdout is a terminal and `rich` exists."""
    if as_json:
        return JsonScreen()
    if sys.stdout.isatty():
        with contextlib.suppress(ImportError):
            from plugin.cli.terminal_screen import TerminalScreen  # noqa: PLC0415 - rich may be missing

            return TerminalScreen(prefix=prefix)
    return PlainScreen(prefix=prefix)
