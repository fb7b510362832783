"""Commands in a Debian guest of any kind."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable

from tests.support.closing import Closing
from tests.support.waiting import wait_until


class GuestShell(Closing, ABC):
    """A shell in a guest.

    Attributes:
        patience_s: seconds that `wait` allows.
    """

    patience_s: float = 30

    @abstractmethod
    def close(self) -> None:
        """Ends the guest."""

    @abstractmethod
    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end, whatever the exit status."""

    def shell(self, script: str) -> str:
        """Runs a script that must succeed and returns its output."""
        done = self.run("sh", "-ec", script)
        assert done.returncode == 0, f"{script}: status {done.returncode}: {done.stdout}"
        return done.stdout.strip()

    def show(self, unit: str, field: str) -> str:
        """Returns one property of a unit."""
        return self.shell(f"systemctl show -P {field} {unit}")

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Waits for a condition; a failure shows the end of the guest's journal."""
        wait_until(
            condition,
            self.patience_s,
            lambda: f"{what}: {self.shell('journalctl -n 30 --no-pager')}",
        )
