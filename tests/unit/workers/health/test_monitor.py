"""Tests of the course of health checks, with a shim and timers in the control of the test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from proto.errors import Code, DriverError
from tests.support.workers.health import QUICK
from workers.health import records
from workers.health.monitor import Monitor
from workers.health.records import HealthCheck
from workers.loop import Loop, Timer
from workers.protocol import ExitRecord, WorkerSpec
from workers.shim import ttrpc

REFUSED = DriverError("the shim refuses", details="no such program", code=Code.INTERNAL)
LOST = DriverError("the shim does not answer", details="closed", code=Code.UNAVAILABLE)
PAUSED, RUNNING = 4, 2


class Timers:
    """A loop. Timers fire only at the command of the test."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Timer]] = []

    def later(self, seconds: float, call: Callable[[], None]) -> Timer:
        timer = Timer(seconds, call)
        self.timers.append((seconds, timer))
        return timer

    def watch(self, *_: object) -> None:
        """Ignores the FIFO: the output is read at the end of a check."""

    def forget(self, *_: object) -> None:
        """See `watch`."""

    @property
    def waiting(self) -> list[float]:
        """The times of all waiting timers, in seconds."""
        return [seconds for seconds, timer in self.timers if not timer.cancelled]

    def fire(self, seconds: float) -> None:
        """Fires the only waiting timer; checks the time of the timer."""
        ((due_s, timer),) = [item for item in self.timers if not item[1].cancelled]
        assert due_s == seconds
        timer.cancel()
        timer.call()


class Shim:
    """A shim. Each call waits for the answer of the test."""

    connected = True

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def call(self, method: str, payload: bytes, _timeout_ns: int, answer: Any) -> None:
        assert ttrpc.octets(ttrpc.parse(payload), 2), "a call for the exec"
        self.calls.append((method, None if method == "Kill" else answer))

    def state(self, answer: Any) -> None:
        self.calls.append(("state", answer))

    def answer(self, name: str, fields: Any = None, error: DriverError | None = None) -> None:
        """Answers the only open call; checks the name of the call."""
        ((called, answer),) = self.calls
        assert called == name
        self.calls.clear()
        if answer is not None:
            answer(ttrpc.message(fields or {}), error)


class Watch:
    """A watch of a task; `kills` has the signals."""

    def __init__(self, shim: Shim) -> None:
        self.shim = shim
        self.target = SimpleNamespace(container_id="c")
        self.kills: list[int] = []

    def ask_state(self, seen: Any) -> None:
        def answered(payload: bytes, error: DriverError | None) -> None:
            seen(*(ttrpc.state_answer(payload) if error is None else (0, "")), error)

        self.shim.state(answered)

    def kill(self, number: int, *, everyone: bool, done: Any) -> None:
        assert not everyone
        self.kills.append(number)
        done(None)


class Plugin:
    """A connection of a plugin."""

    knows_logs = True

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []

    def send(self, frame: dict[str, Any]) -> None:
        self.received.append(frame)


class Scene:
    """A monitor with loop, shim and plugin."""

    def __init__(self, directory: Path, **fields: Any) -> None:
        self.timers = Timers()
        self.shim = Shim()
        self.watch = Watch(self.shim)
        self.plugins: list[Any] = [Plugin()]
        self.descriptor = os.open(directory, os.O_RDONLY)
        self.monitor = Monitor(
            cast("Loop", self.timers),
            WorkerSpec(name="t", dir=str(directory)),
            self.descriptor,
            cast("Any", self.watch),
            HealthCheck(process="{}", **{**QUICK, "interval_ms": 7000, **fields}),
            lambda: self.plugins,
        )
        self.monitor.begin(os.getpid())

    def check(self, code: int) -> None:
        """Runs a check to the end."""
        self.timers.fire(7.0)
        self.shim.answer("Exec")
        self.shim.answer("Start")
        self.shim.answer("Wait", {1: code})
        self.shim.answer("Delete")
        if code:
            self.timers.fire(0.2)
            self.shim.answer("state", {4: RUNNING})

    def statuses(self) -> list[str]:
        return [frame["status"] for plugin in self.plugins for frame in plugin.received]

    def close(self) -> None:
        self.monitor.close()
        os.close(self.descriptor)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    """Yields a function for scenes, all in the same state directory."""
    scenes: list[Scene] = []

    def scene(**fields: Any) -> Scene:
        scenes.append(Scene(tmp_path, **fields))
        return scenes[-1]

    yield scene
    for one in scenes:
        one.close()


def test_checks_do_not_overlap_and_only_changes_are_reported(make: Callable[..., Scene]) -> None:
    scene = make(retries=2)
    for code in (0, 0, 1, 1, 1, 0):
        assert scene.timers.waiting == [7.0]
        scene.check(code)
    assert scene.statuses() == ["healthy", "unhealthy", "healthy"]


def test_a_check_beyond_its_time_is_killed_again_and_again_before_the_next_begins(
    make: Callable[..., Scene],
) -> None:
    scene = make(timeout_ms=3000)
    scene.timers.fire(7.0)
    scene.shim.answer("Exec")
    scene.shim.answer("Start")
    (wait,) = scene.shim.calls
    scene.shim.calls.clear()
    scene.timers.fire(3.0)
    scene.shim.answer("state", {4: RUNNING})
    scene.shim.answer("Kill")
    scene.timers.fire(5.0)
    scene.shim.answer("Kill")
    assert scene.timers.waiting == [5.0], "no next check"
    wait[1](ttrpc.message({1: 137}), None)
    scene.shim.answer("Delete")
    scene.timers.fire(0.2)
    scene.shim.answer("state", {4: RUNNING})
    (frame,) = scene.plugins[0].received
    assert (frame["code"], frame["problem"]) == (None, "no end within 3 s")


def test_a_paused_task_is_not_judged_and_its_check_not_killed(make: Callable[..., Scene]) -> None:
    scene = make(timeout_ms=3000)
    scene.timers.fire(7.0)
    scene.shim.answer("Exec", error=REFUSED)
    scene.timers.fire(0.2)
    scene.shim.answer("state", {4: PAUSED})
    scene.timers.fire(7.0)
    scene.shim.answer("Exec")
    scene.shim.answer("Start")
    scene.shim.calls.clear()
    scene.timers.fire(3.0)
    scene.shim.answer("state", {4: PAUSED})
    assert scene.timers.waiting == [3.0]
    assert scene.monitor.status == records.STARTING


def test_an_end_of_the_task_is_no_failure_of_its_check(make: Callable[..., Scene]) -> None:
    scene = make(restarts=True)
    scene.timers.fire(7.0)
    scene.shim.answer("Exec")
    scene.shim.answer("Start")
    scene.shim.answer("Wait", {1: 137})
    scene.shim.answer("Delete")
    ended = ExitRecord(code=0, at_ns=1)
    assert scene.monitor.exit(ended) == ended
    assert scene.timers.waiting == []
    assert scene.statuses() == []


def test_a_lost_shim_is_no_failure(make: Callable[..., Scene]) -> None:
    scene = make()
    scene.timers.fire(7.0)
    scene.shim.answer("Exec")
    scene.shim.answer("Start", error=LOST)
    assert scene.timers.waiting == [7.0]
    assert scene.monitor.status == records.STARTING


def test_no_check_begins_after_the_begin_of_a_stop(make: Callable[..., Scene]) -> None:
    scene = make()
    scene.monitor.stop()
    scene.timers.fire(7.0)
    assert scene.shim.calls == []
    assert scene.timers.waiting == []


def test_a_result_after_the_begin_of_a_stop_has_no_effect(make: Callable[..., Scene]) -> None:
    scene = make(restarts=True)
    scene.timers.fire(7.0)
    scene.shim.answer("Exec")
    scene.shim.answer("Start")
    scene.monitor.stop()
    scene.shim.answer("Wait", {1: 1})
    scene.shim.answer("Delete")
    assert scene.timers.waiting == []
    assert scene.watch.kills == []


def test_changes_wait_for_a_plugin_and_are_reported_once(make: Callable[..., Scene]) -> None:
    scene = make()
    (plugin,) = scene.plugins
    scene.plugins.clear()
    scene.check(0)
    scene.check(1)
    scene.plugins.append(plugin)
    scene.monitor.greet()
    scene.monitor.greet()
    assert scene.statuses() == ["healthy", "unhealthy"]


def test_an_unhealthy_task_is_stopped_and_then_killed(make: Callable[..., Scene]) -> None:
    scene = make(restarts=True, signal=3, kill_timeout_ms=1500)
    scene.check(1)
    assert scene.watch.kills == [3]
    scene.timers.fire(1.5)
    assert scene.watch.kills == [3, 9]
    record = scene.monitor.exit(ExitRecord(code=137, at_ns=1))
    assert record.code == 137
    assert record.reason.startswith("unhealthy: ")
    assert scene.timers.waiting == []


def test_the_next_worker_knows_the_status_and_ends_an_unhealthy_task(
    make: Callable[..., Scene],
) -> None:
    make().check(0)
    second = make(restarts=True)
    assert second.monitor.status == records.HEALTHY
    second.shim.answer("State", error=REFUSED)
    second.check(1)
    third = make(restarts=True)
    assert third.monitor.status == records.UNHEALTHY
    assert third.watch.kills == [15]
    assert third.monitor.exit(ExitRecord(code=0, at_ns=1)).code == 1


def test_the_next_worker_ends_the_check_of_the_dead_worker_first(
    make: Callable[..., Scene],
) -> None:
    make()
    scene = make()
    assert scene.timers.waiting == []
    scene.shim.answer("State", {4: RUNNING})
    assert [name for name, _ in scene.shim.calls] == ["Kill", "Wait"]
    scene.shim.calls.pop(0)
    scene.shim.answer("Wait", {1: 137})
    scene.shim.answer("Delete")
    assert scene.timers.waiting == [7.0]
