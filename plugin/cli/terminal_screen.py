"""Screen of a terminal: a colour for each task, and a live line for steps in progress."""

from __future__ import annotations

from collections import defaultdict
from typing import TextIO, cast

from rich.console import Console
from rich.status import Status
from rich.text import Text

from actors.model.nomad import ExitResult, PortMapping, TaskUsage
from plugin.cli.console import UnfailingStdout
from plugin.host.agent.log_reader import Lines
from plugin.host.run.screen import end_text, port_text, usage_text
from plugin.texts import indented, one_line

_COLOURS = ("cyan", "magenta", "green", "yellow", "blue")
# Events about a step in progress, not about a finished step.
_IN_PROGRESS = ("Downloading image", "Resolving image", "Unpacking image")


class TerminalScreen:
    """See `plugin.host.run.screen.Screen`.

    Args:
        prefix: True puts the name of the task before each line of its log.
        console: rich's console; None for stdout.
    """

    def __init__(self, *, prefix: bool, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, file=cast("TextIO", UnfailingStdout()))
        self._prefix = prefix
        self._lines: defaultdict[tuple[str, str], Lines] = defaultdict(Lines)
        self._status: Status | None = None
        self._pending: dict[str, str] = {}
        self._colours: dict[str, str] = {}

    def note(self, text: str) -> None:
        """See `Screen`."""
        self._line(("• ", "dim"), (text, "dim"))

    def event(self, task: str, text: str) -> None:
        """See `Screen`. Steps in progress share the live line."""
        if text.startswith(_IN_PROGRESS):
            self._pending[task] = text
            self._draw()
            return
        self._settle(task)
        self._line(("• ", "dim"), (task, self._colour(task)), (f"  {text}", "dim"))

    def log(self, task: str, stream: str, data: bytes) -> None:
        """See `Screen`. Keeps colours of the task, and drops sequences that move the cursor."""
        for line in self._lines[task, stream].feed(data):
            self._show(task, stream, line)

    def log_ended(self, task: str, stream: str) -> None:
        """See `Screen`."""
        for line in self._lines[task, stream].end():
            self._show(task, stream, line)

    def _show(self, task: str, stream: str, line: bytes) -> None:
        text = Text.from_ansi(line.removesuffix(b"\n").decode(errors="replace"))
        if stream == "stderr":
            text.style = "red"
        before = Text(f"{one_line(task)} │ ", self._colour(task)) if self._prefix else Text()
        self._console.print(before + text, soft_wrap=True)

    def has_room(self, stream: str) -> bool:  # noqa: ARG002 - a terminal is never full
        """See `Screen`."""
        return True

    def stats(self, task: str, usage: TaskUsage) -> None:
        """See `Screen`."""
        self._pending[task] = usage_text(usage)
        self._draw()

    def port(self, alloc: str, port: PortMapping) -> None:
        """See `Screen`."""
        self.note(port_text(alloc, port))

    def ended(self, task: str, result: ExitResult, seconds: float) -> None:
        """See `Screen`."""
        self._settle(task)
        good = result.exit_code == 0 and not result.error
        mark = ("✔ ", "green") if good else ("✘ ", "red")
        text = f"  {end_text(result)} after {seconds:.1f} s"
        self._line(mark, (task, self._colour(task)), (text, "" if good else "red"))

    def error(self, text: str) -> None:
        """See `Screen`."""
        self._line(("✘ ", "bold red"), (text, "red"))

    def close(self) -> bool:
        """See `Screen`."""
        self._pending.clear()
        self._draw()
        return True

    def _settle(self, task: str) -> None:
        if self._pending.pop(task, None) is not None:
            self._draw()

    def _draw(self) -> None:
        """Shows the live line during steps in progress, and restores the cursor afterwards."""
        if not self._pending:
            if self._status is not None:
                self._status.stop()
                self._status = None
            return
        text = Text("  ").join(
            Text.assemble((one_line(task), self._colour(task)), (f" {one_line(step)}", "dim"))
            for task, step in self._pending.items()
        )
        text.no_wrap, text.overflow = True, "ellipsis"
        if self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        else:
            self._status.update(text)

    def _line(self, *parts: tuple[str, str]) -> None:
        texts = ((indented(text), style) for text, style in parts)
        self._console.print(Text.assemble(*texts), soft_wrap=True)

    def _colour(self, task: str) -> str:
        return self._colours.setdefault(task, _COLOURS[len(self._colours) % len(_COLOURS)])
