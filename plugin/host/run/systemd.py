"""What a run tells systemd, where a unit of `Type=notify` started it.

The unit is started once every task runs, its status line says how many do, and its stop is said
before the tasks are stopped. Protocol: sd_notify(3), spoken by the sdnotify package.
"""

from __future__ import annotations

from typing import Protocol

import sdnotify

from plugin import environment


class Notifier(Protocol):
    """`sdnotify.SystemdNotifier`: one message, never an error."""

    def notify(self, state: str) -> None:
        """Sends lines of sd_notify's assignments."""


class ServiceManager:
    """Counts the tasks of one run.

    Args:
        tasks: how many there are.
        notifier: where it goes; None where nobody listens.
    """

    def __init__(self, tasks: int, notifier: Notifier | None) -> None:
        self._tasks = tasks
        self._notifier = notifier
        self._started = 0
        self._ended = 0

    def started(self) -> None:
        """A task runs."""
        self._started += 1
        self._say("READY=1" if self._started == self._tasks else "")

    def ended(self) -> None:
        """A task that ran has ended."""
        self._ended += 1
        self._say()

    def stopping(self) -> None:
        """The tasks are about to be stopped."""
        self._say("STOPPING=1")

    def _say(self, word: str = "") -> None:
        if self._notifier is not None:
            status = f"STATUS={self._started - self._ended} of {self._tasks} tasks running"
            self._notifier.notify("\n".join(filter(None, (word, status))))


def find(tasks: int) -> ServiceManager:
    """systemd's, where it waits to hear from this process; else one that tells nobody."""
    wanted = environment.variable("NOTIFY_SOCKET")
    return ServiceManager(tasks, sdnotify.SystemdNotifier() if wanted else None)
