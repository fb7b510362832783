"""Contract tests of a shim: the fake and containerd's own shim behave alike for a worker."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.contract.conftest import MakeTask, Task
from tests.support.waiting import wait_until
from tests.support.workers.peers import LauncherProcess, LogReader, Peer, has_ended
from workers import exit_record
from workers.protocol import LOST_CODE


def look_after(launcher: LauncherProcess, task: Task) -> Peer:
    """Connects a worker that watches the created task, which is not started."""
    worker = launcher.worker(task.name, task.stdout, task.stderr)
    answer = worker.watch(task.create())
    assert answer["ok"] is True, answer
    assert answer["pid"] == task.pid
    assert answer["status"] == "created"
    return worker


def finish(worker: Peer) -> None:
    assert worker.ask("end")["ok"] is True
    assert worker.receive() is None
    worker.socket.close()


def test_the_exit_of_a_task_that_ends_at_once_is_not_missed(
    launcher: LauncherProcess, make_task: MakeTask
) -> None:
    task = make_task("exit 3")
    worker = look_after(launcher, task)
    task.start()
    event = worker.event("exit")
    assert (event["code"], event["lost"], event["reason"]) == (3, False, "")
    assert isinstance(event["at_ns"], int)
    recorded = exit_record.read_exit(str(launcher.task_dir(task.name)))
    assert recorded is not None
    assert recorded.to_wire() == {key: event[key] for key in recorded.to_wire()}
    finish(worker)


def test_a_signal_through_the_shim_ends_the_task_with_128_and_its_number(
    launcher: LauncherProcess, make_task: MakeTask
) -> None:
    task = make_task("exec sleep 60")
    worker = look_after(launcher, task)
    task.start()
    assert worker.ask("kill", signal=int(signal.SIGKILL), all=False)["ok"] is True
    assert worker.event("exit")["code"] == 128 + signal.SIGKILL
    answer = worker.ask("kill", signal=int(signal.SIGTERM))
    assert isinstance(answer["error"], dict)
    assert answer["error"]["code"] == "not-found"
    finish(worker)


def test_a_reader_gets_all_output_and_its_end_before_drained_is_said(
    launcher: LauncherProcess, make_task: MakeTask
) -> None:
    task = make_task("head -c 3000000 /dev/zero; echo oops >&2; exit 1")
    out, err = LogReader(task.stdout), LogReader(task.stderr)
    worker = look_after(launcher, task)
    task.start()
    assert worker.event("exit")["code"] == 1
    assert worker.event("drained")["complete"] is True
    assert len(out.finish()) == 3_000_000
    assert err.finish() == b"oops\n"
    finish(worker)


def test_what_is_written_while_nobody_reads_waits_for_a_late_reader(
    launcher: LauncherProcess, make_task: MakeTask
) -> None:
    task = make_task("head -c 200000 /dev/zero; exit 0")
    worker = look_after(launcher, task)
    task.start()
    assert worker.event("drained")["complete"] is True
    late_out, late_err = LogReader(task.stdout), LogReader(task.stderr)
    assert len(late_out.finish()) == 200_000
    # Nothing was written here, and open() does not hang all the same.
    assert late_err.finish() == b""
    finish(worker)


def test_a_reader_that_is_killed_and_comes_back_loses_only_what_the_dead_one_had_read(
    launcher: LauncherProcess, make_task: MakeTask
) -> None:
    task = make_task("echo one; exec sleep 60")
    worker = look_after(launcher, task)
    task.start()
    first = os.open(task.stdout, os.O_RDONLY)
    assert os.read(first, 100) == b"one\n"
    os.close(first)
    again = LogReader(task.stdout)
    assert again.opened.wait(10), "open() waits for a writer although the task runs"
    assert not again.eof.is_set()
    worker.ask("kill", signal=int(signal.SIGKILL))
    assert again.finish() == b""
    finish(worker)


def test_a_new_worker_takes_over_from_one_that_was_killed(
    launcher: LauncherProcess, make_task: MakeTask
) -> None:
    task = make_task("exec sleep 60")
    first = launcher.worker(task.name, task.stdout, task.stderr)
    target = task.create()
    assert first.watch(target)["ok"] is True
    task.start()
    pid = first.ask("hello")["pid"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    assert first.receive() is None
    first.socket.close()
    second = launcher.worker(task.name, task.stdout, task.stderr)
    answer = second.watch(target)
    assert (answer["pid"], answer["status"]) == (task.pid, "running")
    second.ask("kill", signal=int(signal.SIGKILL))
    assert second.event("exit")["code"] == 137
    finish(second)


def test_an_exit_while_there_was_no_worker_is_told_by_the_shim(
    launcher: LauncherProcess, make_task: MakeTask
) -> None:
    task = make_task("echo last words; exit 7")
    first = launcher.worker(task.name, task.stdout, task.stderr)
    target = task.create()
    os.kill(int(str(first.ask("hello")["pid"])), signal.SIGKILL)
    assert first.receive() is None
    first.socket.close()
    reader = LogReader(task.stdout)
    task.start()
    assert reader.finish() == b"last words\n"
    second = launcher.worker(task.name, task.stdout, task.stderr)
    assert second.watch(target)["ok"] is True
    assert second.event("exit")["code"] == 7
    # The shim closed both ends before the worker came: no hang-up will follow.
    assert second.event("drained")["complete"] is True
    finish(second)


def test_a_shim_that_is_killed_is_reported_as_lost_with_a_reason(
    launcher: LauncherProcess, make_task: MakeTask
) -> None:
    task = make_task("exec sleep 60")
    worker = look_after(launcher, task)
    task.start()
    task.kill_shim()
    event = worker.event("exit")
    assert (event["code"], event["lost"]) == (LOST_CODE, True)
    assert "shim" in str(event["reason"])
    assert has_ended(task.pid)
    hello = worker.ask("hello")
    assert isinstance(hello["exit"], dict)
    assert hello["exit"]["lost"] is True
    finish(worker)


def test_a_container_that_the_shim_does_not_know_cannot_be_watched(
    launcher: LauncherProcess, make_task: MakeTask
) -> None:
    task = make_task("exec sleep 60")
    worker = launcher.worker(task.name, task.stdout, task.stderr)
    target = task.create()
    stranger = target.to_wire() | {"container_id": "somebody-else"}
    answer = worker.ask("watch", **stranger)
    assert isinstance(answer["error"], dict)
    assert answer["error"]["code"] == "not-found"
    # The refused request was no watch, so a correct request may still follow.
    assert worker.watch(target)["ok"] is True
    finish(worker)


def test_waiting_costs_no_cpu(launcher: LauncherProcess, make_task: MakeTask) -> None:
    task = make_task("exec sleep 60")
    worker = look_after(launcher, task)
    task.start()
    pid = worker.ask("hello")["pid"]
    status = Path(f"/proc/{pid}/status")
    # The worker sleeps in epoll_wait; another switch would mean a timer or a busy loop.
    before = wait_until(lambda: _asleep(status), 5)
    assert not LogReader(task.stderr).eof.wait(1.0)
    assert _asleep(status) == before
    worker.ask("kill", signal=int(signal.SIGKILL))
    worker.event("drained")
    finish(worker)


def _asleep(status: Path) -> str:
    lines = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
    if not lines["State"].startswith("S"):
        return ""
    return lines["voluntary_ctxt_switches"] + lines["nonvoluntary_ctxt_switches"]
