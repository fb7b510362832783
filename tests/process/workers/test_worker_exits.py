"""Tests of a task's exit and stats, as a worker records and reports both."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from tests.support.fakes.shim import FakeTask
from tests.support.waiting import wait_until
from tests.support.workers.answers import error_of, finish
from tests.support.workers.peers import LauncherProcess, LogReader, has_ended
from workers import exit_record
from workers.protocol import LOST_CODE, ExitRecord, ShimTarget


def test_a_recorded_exit_is_told_by_the_next_worker_which_waits_for_nothing(
    launcher: LauncherProcess, name: str
) -> None:
    directory = os.open(launcher.task_dir(name), os.O_RDONLY)
    record = ExitRecord(code=9, at_ns=77, oom_kills=1)
    exit_record.reserve_exit(directory).write(record.to_wire())
    os.close(directory)
    worker = launcher.worker(name)
    hello = worker.ask("hello")
    assert hello["exit"] == record.to_wire()
    assert hello["drained"] is True
    nowhere = ShimTarget(address="unix:///nowhere", api=2, namespace="n", container_id=name)
    answer = worker.watch(nowhere)
    assert (answer["ok"], answer["status"]) == (True, "stopped")
    assert worker.event("exit")["code"] == 9
    assert worker.event("drained")["complete"] is True
    assert error_of(worker.ask("kill", signal=15))[0] == "not-found"
    finish(worker)


def test_an_exit_is_told_to_everybody_and_to_whoever_comes_later(
    launcher: LauncherProcess, make_task: Callable[..., FakeTask]
) -> None:
    task = make_task("exit 5")
    worker = launcher.worker(task.name, task.stdout, task.stderr)
    assert worker.watch(task.create())["ok"] is True
    with launcher.control(task.name) as second:
        task.start()
        assert worker.event("exit")["code"] == second.event("exit")["code"] == 5
    worker.event("drained")
    with launcher.control(task.name) as late:
        hello = late.ask("hello")
        assert isinstance(hello["exit"], dict)
        assert hello["exit"]["code"] == 5
        assert hello["drained"] is True
        assert late.ask("stats", interval_ms=100)["ok"] is True
        assert late.event("exit")["code"] == 5
    finish(worker)


def test_an_exit_is_recorded_though_nobody_is_connected(
    launcher: LauncherProcess, make_task: Callable[..., FakeTask]
) -> None:
    task = make_task("exit 6")
    worker = launcher.worker(task.name, task.stdout, task.stderr)
    assert worker.watch(task.create())["ok"] is True
    worker.socket.close()
    task.start()
    directory = str(launcher.task_dir(task.name))
    record = wait_until(lambda: exit_record.read_exit(directory), 10)
    assert record is not None
    assert record.code == 6
    with launcher.control(task.name) as late:
        finish(late)


def test_watching_twice_asks_the_shim_again_and_waits_once(
    launcher: LauncherProcess, make_task: Callable[..., FakeTask]
) -> None:
    task = make_task("exit 1")
    worker = launcher.worker(task.name, task.stdout, task.stderr)
    target = task.create()
    assert worker.watch(target)["status"] == "created"
    assert worker.watch(target)["pid"] == task.pid
    assert worker.ask("hello")["watching"] is True
    other = ShimTarget.from_wire({**target.to_wire(), "container_id": "another"})
    assert error_of(worker.watch(other))[0] == "precondition"
    task.start()
    assert worker.event("exit")["code"] == 1
    worker.event("drained")
    assert worker.events == []
    finish(worker)


def test_stats_come_at_once_at_their_interval_and_stop_at_the_end(
    launcher: LauncherProcess, make_task: Callable[..., FakeTask]
) -> None:
    task = make_task("exec sleep 60")
    worker = launcher.worker(task.name, task.stdout, task.stderr)
    assert worker.watch(task.create())["ok"] is True
    with launcher.control(task.name) as subscriber:
        assert subscriber.ask("stats", interval_ms=60_000)["ok"] is True
        assert isinstance(subscriber.event("stats")["t_ns"], int)
        assert subscriber.ask("stats", interval_ms=50)["ok"] is True
        times = [int(str(subscriber.event("stats")["t_ns"])) for _ in range(3)]
        assert times == sorted(times)
        assert subscriber.ask("stats", interval_ms=0)["ok"] is True
        subscriber.events.clear()
        assert subscriber.ask("hello")["ok"] is True
        assert subscriber.events == []
        subscriber.ask("stats", interval_ms=50)
        task.start()
        worker.ask("kill", signal=int(signal.SIGKILL))
        assert subscriber.event("exit")["code"] == 137
    worker.event("drained")
    finish(worker)


@pytest.mark.parametrize("interval_ms", [25 * 24 * 3_600_000, 2**31, 2**53, 2**64 - 1])
def test_an_interval_beyond_what_the_kernel_counts_ends_no_worker(
    launcher: LauncherProcess, make_task: Callable[..., FakeTask], interval_ms: int
) -> None:
    task = make_task("exec sleep 60")
    worker = launcher.worker(task.name, task.stdout, task.stderr)
    assert worker.watch(task.create())["ok"] is True
    with launcher.control(task.name) as subscriber:
        assert subscriber.ask("stats", interval_ms=interval_ms)["ok"] is True
        assert isinstance(subscriber.event("stats")["t_ns"], int)
        for _ in range(3):  # each is a turn of the loop with the timer
            assert subscriber.ask("hello")["ok"] is True
    task.start()
    worker.ask("kill", signal=int(signal.SIGKILL))
    worker.event("drained")
    finish(worker)


def test_a_process_that_outlives_its_shim_is_killed_before_the_task_counts_as_ended(
    launcher: LauncherProcess, make_task: Callable[..., FakeTask]
) -> None:
    task = make_task("exec sleep 60", orphan=True)
    worker = launcher.worker(task.name, task.stdout, task.stderr)
    assert worker.watch(task.create())["ok"] is True
    task.start()
    task.kill_shim()
    event = worker.event("exit")
    assert (event["code"], event["lost"]) == (LOST_CODE, True)
    assert "was killed" in str(event["reason"])
    assert has_ended(task.pid)
    finish(worker)


def test_output_that_nobody_lets_end_is_given_up_after_a_while(
    launcher: LauncherProcess, make_task: Callable[..., FakeTask]
) -> None:
    # The background process outlives the task's first process and keeps the FIFO open.
    task = make_task("echo a; sleep 4 & exit 0")
    reader = LogReader(task.stdout)
    worker = launcher.worker(task.name, task.stdout, task.stderr)
    assert worker.watch(task.create())["ok"] is True
    task.start()
    assert worker.event("exit")["code"] == 0
    assert worker.event("drained")["complete"] is False
    assert bytes(reader.data) == b"a\n"
    finish(worker)
    assert reader.finish() == b"a\n"
