"""Output of `containerd-driver run`: the interface of a screen, and the texts of all screens."""

from __future__ import annotations

import signal
from typing import Protocol

from actors.model.nomad import ExitResult, PortMapping, TaskUsage
from plugin.host.network.ports import container_port


class Screen(Protocol):
    """A place for the output of a run: a terminal, plain lines or JSON lines."""

    def note(self, text: str) -> None:
        """Shows a line about the run."""

    def event(self, task: str, text: str) -> None:
        """Shows an event of a task, for example the progress of a pull."""

    def log(self, task: str, stream: str, data: bytes) -> None:
        """Shows a chunk of a task's log; `stream` is stdout or stderr."""

    def log_ended(self, task: str, stream: str) -> None:
        """Marks the end of a task's log."""

    def has_room(self, stream: str) -> bool:
        """Returns True if all earlier output of the stream is written; if not, `log` must wait."""
        ...

    def stats(self, task: str, usage: TaskUsage) -> None:
        """Shows a sample of a task's usage."""

    def port(self, alloc: str, port: PortMapping) -> None:
        """Shows the address of an allocation's port; `alloc` is empty if the job has one alloc."""

    def ended(self, task: str, result: ExitResult, seconds: float) -> None:
        """Shows the end of a task and the seconds since its start."""

    def error(self, text: str) -> None:
        """Shows a failure."""

    def close(self) -> bool:
        """Restores the terminal after the last output; returns False if output was lost."""
        ...


def port_text(alloc: str, port: PortMapping) -> str:
    """Describes the address of a port."""
    before = f"{alloc}: " if alloc else ""
    after = f" -> {container_port(port)}" if container_port(port) != port.value else ""
    return f"{before}port {port.label}: {port.host_ip}:{port.value}{after}"


def end_text(result: ExitResult) -> str:
    """Describes the end of a task."""
    if result.error:
        return f"failed: {result.error}"
    if result.oom_killed:
        return f"killed by the kernel, out of memory (exit code {result.exit_code})"
    if result.signal:
        return f"ended by {_signal_name(result.signal)} (exit code {result.exit_code})"
    return f"exit code {result.exit_code}"


def usage_text(usage: TaskUsage) -> str:
    """Describes a sample."""
    memory = usage.memory.usage
    memory_text = f", memory {memory / 2**20:.1f} MiB" if memory is not None else ""
    return f"cpu {usage.cpu.percent:.1f} %{memory_text}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
