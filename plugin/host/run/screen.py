"""What `containerd-driver run` shows.

Colours and a live line on a terminal, plain lines elsewhere, JSON lines for scripts.
"""

from __future__ import annotations

import signal
from typing import Protocol

from actors.model.nomad import ExitResult, PortMapping, TaskUsage
from plugin.host.network.ports import inside


class Screen(Protocol):
    """Where a run's news go."""

    def note(self, text: str) -> None:
        """A line about the run itself."""

    def event(self, task: str, text: str) -> None:
        """A task event: progress of a pull, a start, an end."""

    def log(self, task: str, stream: str, data: bytes) -> None:
        """What a task wrote, in the pieces in which it comes."""

    def log_ended(self, task: str, stream: str) -> None:
        """Nothing more of this log comes."""

    def has_room(self, stream: str) -> bool:
        """Returns whether all of `stdout` or `stderr` is out; while not, no more should come."""
        ...

    def stats(self, task: str, usage: TaskUsage) -> None:
        """A sample of what a task uses."""

    def port(self, alloc: str, port: PortMapping) -> None:
        """Where a port of an allocation is reachable; alloc is empty where there is one."""

    def ended(self, task: str, result: ExitResult, seconds: float) -> None:
        """A task ended after so many seconds."""

    def error(self, text: str) -> None:
        """A failure."""

    def close(self) -> bool:
        """Nothing comes any more: the terminal is as it was. False where something was lost."""
        ...


def published(alloc: str, port: PortMapping) -> str:
    """Returns where a port is reachable, in words."""
    before = f"{alloc}: " if alloc else ""
    after = f" -> {inside(port)}" if inside(port) != port.value else ""
    return f"{before}port {port.label}: {port.host_ip}:{port.value}{after}"


def describe(result: ExitResult) -> str:
    """How a task ended, in words."""
    if result.error:
        return f"lost: {result.error}"
    if result.oom_killed:
        return f"killed by the kernel, out of memory (exit code {result.exit_code})"
    if result.signal:
        return f"ended by {_signal_name(result.signal)} (exit code {result.exit_code})"
    return f"exit code {result.exit_code}"


def used(usage: TaskUsage) -> str:
    """A sample in words."""
    memory = usage.memory.usage
    shown = f", memory {memory / 2**20:.1f} MiB" if memory is not None else ""
    return f"cpu {usage.cpu.percent:.1f} %{shown}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
