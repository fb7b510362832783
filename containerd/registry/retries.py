"""Decides when a pull asks a registry again: at the registry's time, else after growing pauses."""

from __future__ import annotations

import email.utils
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from proto.errors import DriverError

# Gateways use numbers from 520. The four excluded statuses mean a missing feature, which a later
# request does not get either.
TRANSIENT = frozenset({408, 425, 429, *range(500, 600)}) - {501, 505, 510, 511}
# Half a minute in all, enough for a registry's restart; after that Nomad itself retries.
_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)
_MAX_QUIET_S = 60.0
_MAX_WAIT_S = 86400.0


class Transient(DriverError):  # noqa: N818 - a kind of DriverError
    """A failure after which a retry may succeed; retry_after_s is the registry's own wish."""

    retry_after_s: float | None = None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Returns the seconds in a Retry-After header; None without a valid header.

    A point in time counts from the answer's own Date, because the clocks may differ.
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
    """Returns the seconds by which this machine's clock is ahead of the answer's Date."""
    then = _seconds(str(headers.get("Date", "")))
    return None if then is None else time.time() - then


def _seconds(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


class Retries:
    """The retries of a pull, within the pull's time. Threads may share an instance.

    Args:
        deadline: `time.monotonic()` at which the pull ends.
        report: gets a sentence when the pull pauses.
        waits: False for a pull with an alternative, such as an image on the node: no pauses then.
    """

    def __init__(
        self, deadline: float, report: Callable[[str], None], *, waits: bool = True
    ) -> None:
        self._deadline = deadline
        self._report = report
        self._waits = waits
        self._lock = threading.Lock()
        self._reported = ""
        self._quiet_s = _PAUSES_S[0]
        self._quiet_until = 0.0

    def rounds(self) -> Rounds:
        """Returns the pauses for a request."""
        return Rounds(self)

    def pause(self, error: DriverError, pause_s: float) -> bool:
        """Waits and returns True; returns False at once if the pull would end during the pause."""
        left = self._deadline - time.monotonic()
        if not self._waits or pause_s >= left:
            return False
        self._report_pause(error, pause_s)
        time.sleep(pause_s)
        return True

    def _report_pause(self, error: DriverError, pause_s: float) -> None:
        """Reports a pause, each time after a longer silence, once for all layers.

        Nomad keeps only a task's ten newest events.
        """
        now = time.monotonic()
        kind = error.brief.partition(" for ")[0]
        with self._lock:
            if kind == self._reported and now < self._quiet_until:
                return
            self._reported, self._quiet_until = kind, now + max(pause_s, self._quiet_s)
            self._quiet_s = min(_MAX_QUIET_S, self._quiet_s * 2)
        text = f"{error.brief}: {error.details}" if error.details else error.brief
        self._report(f"{text}; the pull goes on in {pause_s:.0f} s")


class Rounds:
    """The pauses between the rounds of a request. Progress makes the pauses short again."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries
        self._pauses_s = list(_PAUSES_S)

    def begin_anew(self) -> None:
        """Resets the pauses after progress: the next pause is short."""
        self._pauses_s = list(_PAUSES_S)

    def wait(self, errors: Sequence[DriverError]) -> bool:
        """Waits after a round in which every host failed.

        Args:
            errors: the failures in the hosts' order; the registry itself is last.

        Returns:
            False if no later round can succeed within the pull's time.
        """
        last = errors[-1] if errors else None
        transient = [error for error in errors if isinstance(error, Transient)]
        # A permanent failure of the registry itself counts more than a busy mirror.
        if last is None or not transient or not last.recoverable:
            return False
        error = transient[-1]
        # Retry-After 0 does not count: a server that always answers 0 would be asked for ever.
        wishes_s = [each.retry_after_s for each in transient if (each.retry_after_s or 0) >= 1]
        if not wishes_s and not self._pauses_s:
            return False
        pause_s = min(filter(None, wishes_s)) if wishes_s else self._pauses_s.pop(0)
        # Nodes that were refused at the same time must not all return at the same time.
        jittered_s = pause_s * (1 + secrets.randbelow(200) / 1000)
        if self._retries.pause(error, jittered_s):
            return True
        if wishes_s:
            wish = f"the registry asks for a pause of {pause_s:.0f} s"
            error.details += f"{'; ' if error.details else ''}{wish}"
        return False
