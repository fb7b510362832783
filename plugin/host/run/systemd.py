"""Notifications of a run to systemd, for a unit of `Type=notify`.

The unit becomes active when every task runs. The status line has the number of running tasks. The
stop is reported before the tasks are stopped. The package sdnotify has the protocol, sd_notify(3).
"""

from __future__ import annotations

from typing import Protocol

import sdnotify

from plugin import environment


class Notifier(Protocol):
    """Interface of `sdnotify.SystemdNotifier`, which never raises an error."""

    def notify(self, state: str) -> None:
        """Sends a message: lines of assignments, see sd_notify(3)."""


class ServiceManager:
    """Counts the tasks of one run, and reports the counts to systemd.

    Args:
        tasks: number of tasks.
        notifier: sends messages; None without systemd.
    """

    def __init__(self, tasks: int, notifier: Notifier | None) -> None:
        self._tasks = tasks
        self._notifier = notifier
        self._started = 0
        self._ended = 0

    def started(self) -> None:
        """Reports a started task."""
        self._started += 1
        self._notify("READY=1" if self._started == self._tasks else "")

    def ended(self) -> None:
        """Reports the end of a started task."""
        self._ended += 1
        self._notify()

    def stopping(self) -> None:
        """Reports the coming stop of all tasks."""
        self._notify("STOPPING=1")

    def _notify(self, word: str = "") -> None:
        if self._notifier is not None:
            status = f"STATUS={self._started - self._ended} of {self._tasks} tasks running"
            self._notifier.notify("\n".join(filter(None, (word, status))))


def service_manager(tasks: int) -> ServiceManager:
    """Returns a service manager; without NOTIFY_SOCKET the service manager sends no message.

    Args:
        tasks: number of tasks of the run.
    """
    address = environment.variable("NOTIFY_SOCKET")
    return ServiceManager(tasks, sdnotify.SystemdNotifier() if address else None)
