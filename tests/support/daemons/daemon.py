"""A daemon of the tests as a process: start, readiness, signals, and the end by its pid."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from tests.support.closing import Closing
from tests.support.waiting import slowed, wait_until


class Daemon(Closing):
    """A daemon of a `with` block, in a session of its own.

    Args:
        base: the working directory.
        log: name of the log file below `base`.

    Attributes:
        program: name of the program in errors.
        start_s: seconds from the start until the daemon answers.
    """

    program: ClassVar[str]
    start_s: ClassVar[float] = 60

    def __init__(self, base: Path, log: str = "log") -> None:
        self.base = base
        self.log = base / log
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str]:
        """Returns the command of the daemon."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str] | None:
        """Returns the environment of the daemon; None for the environment of the tests."""
        return None

    def answers(self) -> bool:
        """Returns whether the daemon is ready for requests."""
        raise NotImplementedError

    def enter(self) -> None:
        """See `Closing.enter`."""
        self.start()

    def start(self) -> None:
        """Starts the daemon and returns when the daemon answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.base,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(
            self._ready, self.start_s, lambda: f"{self.program} does not answer: {self.tail()}"
        )

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Ends only the daemon; its children go on."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(slowed(60))
            self.process = None

    def stop(self) -> None:
        """Ends the daemon by SIGTERM, or after a minute by SIGKILL."""
        try:
            self.kill(signal.SIGTERM)
        except subprocess.TimeoutExpired:
            self.kill()

    def tail(self, characters: int = 4000) -> str:
        """Returns the end of the daemon's log."""
        return self.log.read_text(errors="replace")[-characters:]

    def _ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"{self.program} ended at once: {self.tail()}")
        return self.answers()
