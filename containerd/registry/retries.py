"""When a pull asks a registry again: as the registry says, else after a growing pause."""

from __future__ import annotations

import email.utils
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from proto.errors import DriverError

# Gateways have numbers of their own from 520 on. What a server cannot do, it cannot do later.
TRANSIENT = frozenset({408, 425, 429, *range(500, 600)}) - {501, 505, 510, 511}
# Half a minute in all, which is a registry's restart; Nomad itself tries again after that.
_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)
_RAREST_S = 60.0
_MAX_WAIT_S = 86400.0


class Transient(DriverError):  # noqa: N818 - a kind of DriverError
    """A failure that time may heal. retry_after_s is what the registry asks for, if it does."""

    retry_after_s: float | None = None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Returns the seconds of a Retry-After header, or None without a proper one.

    A point in time counts from the answer's own Date: the clocks may differ.
    """
    text = str(headers.get("Retry-After", "")).strip()
    if text.isascii() and text.isdecimal():
        return min(_MAX_WAIT_S, float(text[:9]))
    until = _seconds(text)
    if until is None:
        return None
    now = _seconds(str(headers.get("Date", "")))
    return max(0.0, min(_MAX_WAIT_S, until - (time.time() if now is None else now)))


def clock_lead(headers: Mapping[str, str]) -> float | None:
    """Returns by how many seconds this machine's clock is ahead of the answer's Date."""
    then = _seconds(str(headers.get("Date", "")))
    return None if then is None else time.time() - then


def _seconds(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


class Patience:
    """How long one pull waits for its registries. Threads may share it.

    Args:
        deadline: `time.monotonic()` at which the pull ends.
        tell: hears in words that the pull waits.
        waits: False where something else than this pull would do: then it never waits.
    """

    def __init__(self, deadline: float, tell: Callable[[str], None], *, waits: bool = True) -> None:
        self._deadline = deadline
        self._tell = tell
        self._waits = waits
        self._lock = threading.Lock()
        self._told = ""
        self._quiet_s = _PAUSES_S[0]
        self._quiet_until = 0.0

    def rounds(self) -> Rounds:
        """Returns the pauses of one request."""
        return Rounds(self)

    def pause(self, error: DriverError, pause_s: float) -> bool:
        """Waits and returns True; False at once where the pull would be over by then."""
        left = self._deadline - time.monotonic()
        if not self._waits or pause_s >= left:
            return False
        self._say(error, pause_s)
        time.sleep(pause_s)
        return True

    def _say(self, error: DriverError, pause_s: float) -> None:
        """Tells of a pause: ever more rarely, as Nomad keeps only a task's ten newest events.

        Several layers that wait for the same are told of once.
        """
        now = time.monotonic()
        kind = error.brief.partition(" for ")[0]
        with self._lock:
            if kind == self._told and now < self._quiet_until:
                return
            self._told, self._quiet_until = kind, now + max(pause_s, self._quiet_s)
            self._quiet_s = min(_RAREST_S, self._quiet_s * 2)
        words = f"{error.brief}: {error.details}" if error.details else error.brief
        self._tell(f"{words}; the pull goes on in {pause_s:.0f} s")


class Rounds:
    """The pauses of one request, which begin anew when something has come."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._left = list(_PAUSES_S)

    def begin_anew(self) -> None:
        """The next pause is a short one again."""
        self._left = list(_PAUSES_S)

    def wait(self, errors: Sequence[DriverError]) -> bool:
        """Waits after a round in which every place failed.

        Returns:
            False where no later round can end better within the pull's time.
        """
        last = errors[-1] if errors else None
        transient = [error for error in errors if isinstance(error, Transient)]
        # What the registry itself said, and said for good, counts more than a busy mirror.
        if last is None or not transient or not last.recoverable:
            return False
        error = transient[-1]
        # "At once" is no time: a server that says so for ever would be asked for ever.
        asked = [one.retry_after_s for one in transient if (one.retry_after_s or 0) >= 1]
        if not asked and not self._left:
            return False
        pause_s = min(filter(None, asked)) if asked else self._left.pop(0)
        # Many nodes that were turned away together come back one after the other.
        jittered_s = pause_s * (1 + secrets.randbelow(200) / 1000)
        if self._patience.pause(error, jittered_s):
            return True
        if asked:
            error.details += f"{'; ' if error.details else ''}it asks to wait for {pause_s:.0f} s"
        return False
