"""The steps of a stop, without I/O."""

from __future__ import annotations

import signal

from actors.task.stop import KILL_BUDGET_S, StopSequence
from proto.errors import Code


class Stopped:
    """A stop sequence with lists for signals and timers."""

    def __init__(self) -> None:
        self.signals: list[int] = []
        self.timers: list[tuple[float, int]] = []
        self.sequence = StopSequence(
            self.signals.append, lambda seconds, step: self.timers.append((seconds, step))
        )


def test_sigkill_follows_an_ignored_signal_and_an_error_follows_an_ignored_sigkill() -> None:
    stopped = Stopped()
    stopped.sequence.start(signal.SIGTERM, 5.0)
    assert stopped.sequence.advance(stopped.timers[-1][1]) is None
    error = stopped.sequence.advance(stopped.timers[-1][1])
    assert stopped.signals == [signal.SIGTERM, signal.SIGKILL]
    assert [seconds for seconds, _ in stopped.timers] == [5.0, KILL_BUDGET_S]
    assert error is not None
    assert error.code is Code.TIMEOUT
    assert error.recoverable
    assert str(error).startswith("Shutdown failed: ")


def test_a_timer_of_an_earlier_stop_changes_nothing() -> None:
    stopped = Stopped()
    stopped.sequence.start(signal.SIGTERM, 5.0)
    stopped.sequence.start(signal.SIGINT, 9.0)
    assert stopped.sequence.advance(stopped.timers[0][1]) is None
    assert stopped.signals == [signal.SIGTERM, signal.SIGINT]
    assert len(stopped.timers) == 2


def test_a_stop_with_sigkill_has_no_second_signal() -> None:
    stopped = Stopped()
    stopped.sequence.start(signal.SIGKILL, 60.0)
    assert stopped.timers == [(KILL_BUDGET_S, 1)]
    assert stopped.sequence.advance(1) is not None
    assert stopped.signals == [signal.SIGKILL]
