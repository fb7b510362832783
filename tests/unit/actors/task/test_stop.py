"""The steps of a stop, without I/O, and the delivery of signals."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from actors.model.nomad import TaskConfig
from actors.task.stop import KILL_BUDGET_S, StopSequence, deliver
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


async def test_only_the_sigkill_of_a_stop_ends_waiting_processes_of_the_runtime(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cgroups: list[str] = []
    monkeypatch.setattr("actors.task.stop.runtime_inits.kill", cgroups.append)

    async def request(_op: str, **_fields: object) -> dict[str, Any]:
        return {}

    running = SimpleNamespace(
        services=SimpleNamespace(namespace="nomad", cgroup_v2=False),
        state=SimpleNamespace(container_id="t-a"),
    )
    link = SimpleNamespace(closed=False, request=request)
    reports = SimpleNamespace(step=lambda *_args, **_more: None)
    for number, stops in ((15, True), (9, False), (9, True)):
        await deliver(
            cast("Any", running),
            cast("Any", link),
            TaskConfig(id="a/t/1", name="t"),
            number,
            cast("Any", reports),
            stops=stops,
        )
    assert len(cgroups) == 1
    assert cgroups[0].endswith("/t-a")
