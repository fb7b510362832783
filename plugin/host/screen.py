"""What `containerd-driver run` shows.

Colours and a live line on a terminal, plain lines elsewhere, JSON lines for scripts.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from actors.nomad_types import ExitResult

_COLOURS = ("cyan", "magenta", "green", "yellow", "blue")


class Screen(Protocol):
    """Where a run's news go."""

    def note(self, text: str) -> None:
        """A line about the run itself."""

    def event(self, task: str, text: str) -> None:
        """A task event: progress of a pull, a start, an end."""

    def log(self, task: str, stream: str, line: str) -> None:
        """A line that a task wrote."""

    def ended(self, task: str, result: ExitResult, seconds: float) -> None:
        """A task ended after so many seconds."""

    def error(self, text: str) -> None:
        """A failure."""


class PlainScreen:
    """Logs go to stdout and stderr as the task wrote them; the rest to stderr."""

    def __init__(self, *, prefix: bool) -> None:
        self._prefix = prefix

    def note(self, text: str) -> None:
        """See `Screen`."""
        _print(sys.stderr, text)

    def event(self, task: str, text: str) -> None:
        """See `Screen`."""
        _print(sys.stderr, f"{task}: {text}")

    def log(self, task: str, stream: str, line: str) -> None:
        """See `Screen`."""
        out = sys.stdout if stream == "stdout" else sys.stderr
        _print(out, f"{task} | {line}" if self._prefix else line)

    def ended(self, task: str, result: ExitResult, seconds: float) -> None:
        """See `Screen`."""
        _print(sys.stderr, f"{task}: {describe(result)} after {seconds:.1f} s")

    def error(self, text: str) -> None:
        """See `Screen`."""
        _print(sys.stderr, f"error: {text}")


class JsonScreen:
    """One JSON object per line on stdout: `kind` is note, event, log, exit or error."""

    def note(self, text: str) -> None:
        """See `Screen`."""
        self._write(kind="note", text=text)

    def event(self, task: str, text: str) -> None:
        """See `Screen`."""
        self._write(kind="event", task=task, text=text)

    def log(self, task: str, stream: str, line: str) -> None:
        """See `Screen`."""
        self._write(kind="log", task=task, stream=stream, line=line)

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

    def _write(self, **fields: Any) -> None:
        _print(sys.stdout, json.dumps({"time": round(time.time(), 3), **fields}))


class TerminalScreen:
    """Colours per task, events dimmed, and a status line for what is under way."""

    def __init__(self, *, prefix: bool) -> None:
        from rich.console import Console  # noqa: PLC0415 - only where somebody looks
        from rich.text import Text  # noqa: PLC0415

        self._console = Console(highlight=False)
        self._text = Text
        self._prefix = prefix
        self._status: Any = None
        self._colours: dict[str, str] = {}

    def note(self, text: str) -> None:
        """See `Screen`."""
        self._line(("• ", "dim"), (text, "dim"))

    def event(self, task: str, text: str) -> None:
        """See `Screen`. What goes on for a while turns on the status line."""
        if " image" in text and "pulled" not in text:
            if self._status is None:
                self._status = self._console.status("")
                self._status.start()
            self._status.update(self._text(f"{task}: {text}"))
            return
        self._settle()
        self._line(("• ", "dim"), (task, self._colour(task)), (f"  {text}", "dim"))

    def log(self, task: str, stream: str, line: str) -> None:
        """See `Screen`."""
        self._settle()
        parts = [(f"{task} │ ", self._colour(task))] if self._prefix else []
        self._line(*parts, (line, "red" if stream == "stderr" else ""))

    def ended(self, task: str, result: ExitResult, seconds: float) -> None:
        """See `Screen`."""
        self._settle()
        good = result.exit_code == 0
        mark = ("✔ ", "green") if good else ("✘ ", "red")
        text = f"  {describe(result)} after {seconds:.1f} s"
        self._line(mark, (task, self._colour(task)), (text, "" if good else "red"))

    def error(self, text: str) -> None:
        """See `Screen`."""
        self._settle()
        self._line(("✘ ", "bold red"), (text, "red"))

    def _settle(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _line(self, *parts: tuple[str, str]) -> None:
        self._console.print(self._text.assemble(*parts), soft_wrap=True)

    def _colour(self, task: str) -> str:
        return self._colours.setdefault(task, _COLOURS[len(self._colours) % len(_COLOURS)])


def choose(*, as_json: bool, prefix: bool) -> Screen:
    """JSON where it was asked for, colours on a terminal where `rich` is there, else plain."""
    if as_json:
        return JsonScreen()
    if sys.stdout.isatty():
        with contextlib.suppress(ImportError):
            return TerminalScreen(prefix=prefix)
    return PlainScreen(prefix=prefix)


def describe(result: ExitResult) -> str:
    """How a task ended, in words."""
    if result.error:
        return f"lost: {result.error}"
    if result.oom_killed:
        return f"killed by the kernel, out of memory (exit code {result.exit_code})"
    if result.signal:
        return f"ended by signal {result.signal} (exit code {result.exit_code})"
    return f"exit code {result.exit_code}"


def _print(out: TextIO, text: str) -> None:
    with _pipe_may_close():
        out.write(f"{text}\n")
        out.flush()


@contextlib.contextmanager
def _pipe_may_close() -> Generator[None, None, None]:
    """`run job | head` closes our stdout; the job goes on until it ends or Ctrl-C."""
    with contextlib.suppress(BrokenPipeError, ValueError):
        yield
