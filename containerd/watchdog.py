"""What a pull waits for, and for how long nothing came: a pull is a process, so it may just end.

Whoever may block says so with `over`; a thread of its own looks at all of them. No timeout of a
socket does this: it begins anew with each byte, and looking up a name or a handshake has none.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from proto.errors import Code, DriverError

_LOOK_S = 0.5
# Before this nobody needs to be told of it.
_TELL_S = 3.0
_numbers = itertools.count()
_waits: dict[int, Wait] = {}


@dataclass(slots=True)
class Wait:
    """One thing that one thread waits for.

    brief and what: the sentence, should it be in vain. lives: asks whether waiting makes sense,
    where silence alone does not tell; at each limit anew.
    """

    brief: str
    what: str
    resolution: str
    lives: Callable[[], bool] | None = None
    since: float = field(default_factory=time.monotonic)
    asked: float = 0.0

    def __post_init__(self) -> None:
        self.asked = self.since


@contextlib.contextmanager
def over(
    brief: str, what: str, resolution: str = "", lives: Callable[[], bool] | None = None
) -> Generator[None, None, None]:
    """Returns what is done in here may block; it is over when something has come."""
    number = next(_numbers)
    _waits[number] = Wait(brief, what, resolution, lives)
    try:
        yield
    finally:
        del _waits[number]


class Watchdog(threading.Thread):
    """Looks at all waits.

    Args:
        limit_s: how long nothing may come.
        timeout_s: of the whole pull.
        tell: hears in words what is waited for.
        end: is given the reason to end the pull, once.
    """

    def __init__(
        self,
        limit_s: float,
        timeout_s: float,
        tell: Callable[[str], None],
        end: Callable[[DriverError], None],
    ) -> None:
        super().__init__(daemon=True, name="watchdog")
        self._limit_s = limit_s
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._tell = tell
        self._end = end

    def run(self) -> None:
        """Until the process ends."""
        error: DriverError | None = None
        while error is None:
            time.sleep(min(_LOOK_S, self._limit_s / 4))
            error = self.look(time.monotonic())
        self._end(error)

    def look(self, now: float) -> DriverError | None:
        """Why the pull has to end, if it has."""
        waits = sorted(_waits.copy().values(), key=lambda wait: wait.since)
        if now >= self._deadline:
            return self._late(waits, now)
        for wait in waits:
            if now - wait.asked < self._limit_s:
                continue
            if wait.lives is None or not wait.lives():
                return self._stalled(wait, now)
            wait.asked = now
        if waits and now - waits[0].since >= _TELL_S:
            self._tell(_words(waits[0], now))
        return None

    def _stalled(self, wait: Wait, now: float) -> DriverError:
        return DriverError(
            wait.brief,
            details=f"{wait.what}: nothing came for {now - wait.since:.0f} s",
            resolution=wait.resolution,
            recoverable=True,
            code=Code.TIMEOUT,
        )

    def _late(self, waits: list[Wait], now: float) -> DriverError:
        last = f", waiting for {_words(waits[0], now)}" if waits else ""
        return DriverError(
            f"the pull did not end within {self._timeout_s:g} s{last}",
            resolution="raise image_pull_timeout, or look at the registry and the network",
            recoverable=True,
            code=Code.TIMEOUT,
        )


def _words(wait: Wait, now: float) -> str:
    return f"{wait.what} for {now - wait.since:.0f} s"
