"""Watchdog of the puller: ends a pull in which a blocking operation has received nothing for long.

Each blocking operation registers itself with `waiting`; one thread checks all of them. A timeout of
a socket cannot do that: such a timeout begins anew with each byte, and looking up a name or a TLS
handshake has none. A pull is a process of its own, so the watchdog may simply end the process.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from proto.errors import Code, DriverError

_CHECK_S = 0.5
# Shorter waits are not reported.
_REPORT_S = 3.0


@dataclass(slots=True)
class BlockingOperation:
    """A blocking operation of one thread. See `waiting` for the fields.

    since is the time of the operation's begin, checked the time of the last successful `is_alive`;
    both are of time.monotonic.
    """

    brief: str
    waiting_for: str
    resolution: str
    is_alive: Callable[[], bool] | None = None
    since: float = field(default_factory=time.monotonic)
    checked: float = 0.0

    def __post_init__(self) -> None:
        self.checked = self.since


# All operations that block now, by the identity of their object. The dictionary is global because
# a puller process makes one pull and has one watchdog, while sockets and containerd calls of every
# depth register: no function in between has to pass a watchdog on.
_operations: dict[int, BlockingOperation] = {}


@contextlib.contextmanager
def waiting(
    brief: str,
    waiting_for: str,
    resolution: str = "",
    is_alive: Callable[[], bool] | None = None,
) -> Generator[None, None, None]:
    """Registers a blocking operation with the watchdog while the block runs.

    Args:
        brief: the error's sentence if the operation blocks for longer than the watchdog's limit.
        waiting_for: what the operation waits for, such as a URL; for progress and the error.
        resolution: advice of the error.
        is_alive: asked at each limit whether the peer still works; True grants one more limit.
            Without it, the first limit ends the pull.
    """
    operation = BlockingOperation(brief, waiting_for, resolution, is_alive)
    _operations[id(operation)] = operation
    try:
        yield
    finally:
        del _operations[id(operation)]


class Watchdog(threading.Thread):
    """Thread that checks all registered operations.

    Args:
        limit_s: time for which one operation may block.
        timeout_s: time limit of the whole pull.
        report: receives what the pull waits for, as text.
        end: receives the reason to end the pull, once.
    """

    def __init__(
        self,
        limit_s: float,
        timeout_s: float,
        report: Callable[[str], None],
        end: Callable[[DriverError], None],
    ) -> None:
        super().__init__(daemon=True, name="watchdog")
        self._limit_s = limit_s
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._report = report
        self._end = end

    def run(self) -> None:
        """Checks until the pull has to end."""
        error: DriverError | None = None
        while error is None:
            time.sleep(min(_CHECK_S, self._limit_s / 4))
            error = self.check(time.monotonic())
        self._end(error)

    def check(self, now: float) -> DriverError | None:
        """Returns the reason to end the pull; None if the pull may go on."""
        waits = sorted(_operations.copy().values(), key=lambda wait: wait.since)
        if now >= self._deadline:
            return self._late(waits, now)
        for wait in waits:
            if now - wait.checked < self._limit_s:
                continue
            if wait.is_alive is None or not wait.is_alive():
                return self._stalled(wait, now)
            wait.checked = now
        if waits and now - waits[0].since >= _REPORT_S:
            self._report(_text(waits[0], now))
        return None

    def _stalled(self, wait: BlockingOperation, now: float) -> DriverError:
        return DriverError(
            wait.brief,
            details=f"{wait.waiting_for}: nothing came for {now - wait.since:.0f} s",
            resolution=wait.resolution,
            recoverable=True,
            code=Code.TIMEOUT,
        )

    def _late(self, waits: list[BlockingOperation], now: float) -> DriverError:
        last = f", waiting for {_text(waits[0], now)}" if waits else ""
        return DriverError(
            f"the pull did not end within {self._timeout_s:g} s{last}",
            resolution="raise image_pull_timeout, or check the registry and the network",
            recoverable=True,
            code=Code.TIMEOUT,
        )


def _text(wait: BlockingOperation, now: float) -> str:
    return f"{wait.waiting_for} for {now - wait.since:.0f} s"
