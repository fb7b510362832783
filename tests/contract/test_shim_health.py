"""Contract tests of health checks: the fake shim and containerd's own run the checks alike."""

from __future__ import annotations

import os
import signal
import uuid

from tests.contract.conftest import MakeTask
from tests.support.waiting import wait_until
from tests.support.workers.health import running, write_check, write_command
from tests.support.workers.peers import LauncherProcess, Peer
from workers.health.records import HEALTHY, STARTING, UNHEALTHY

SLEEPS = "trap 'exit 0' TERM; while :; do sleep 0.05; done"


def finish(worker: Peer) -> None:
    assert worker.ask("kill", signal=int(signal.SIGKILL))["ok"] is True
    worker.event("exit")
    assert worker.ask("end")["ok"] is True
    worker.socket.close()


def seconds() -> str:
    """Returns a number of seconds that no other sleep on this machine has."""
    return str(100_000 + uuid.uuid4().int % 10**9)


def test_an_unhealthy_task_is_ended_with_a_failure_though_its_program_ends_with_0(
    launcher: LauncherProcess, make_task: MakeTask
) -> None:
    task = make_task(SLEEPS)
    marker = f"/tmp/{task.name}-{uuid.uuid4().hex}"
    script = (
        f"mkdir -p /tmp; if test -e {marker}; then rm {marker}; echo sick; exit 4; fi;"
        f" touch {marker}"
    )
    write_check(launcher.task_dir(task.name), script, restarts=True)
    worker = launcher.worker(task.name, task.stdout, task.stderr)
    assert worker.watch(task.create())["ok"] is True
    task.start()
    assert worker.event("health")["status"] == HEALTHY
    change = worker.event("health")
    assert (change["status"], change["code"], change["output"]) == ("unhealthy", 4, "sick\n")
    ended = worker.event("exit")
    assert ended["code"] == 1
    assert ended["reason"] == (
        "unhealthy: the health check failed 1 times in a row (exit code 4: sick)"
    )
    assert worker.ask("hello")["health"] == UNHEALTHY
    assert worker.ask("end")["ok"] is True
    worker.socket.close()


def test_a_hanging_check_is_killed_with_its_children(
    launcher: LauncherProcess, make_task: MakeTask
) -> None:
    task = make_task("exec sleep 600")
    time_s = seconds()
    script = f"echo begun; sleep {time_s} & sleep {time_s}"
    write_check(launcher.task_dir(task.name), script, timeout_ms=500)
    worker = launcher.worker(task.name, task.stdout, task.stderr)
    assert worker.watch(task.create())["ok"] is True
    task.start()
    change = worker.event("health")
    assert (change["status"], change["code"], change["output"]) == ("unhealthy", None, "begun\n")
    assert change["problem"] == "no end within 0.5 s"
    finish(worker)
    wait_until(lambda: not running("sleep", time_s), 10, "the check's children live")


def test_a_new_worker_ends_the_check_of_a_killed_worker_and_goes_on(
    launcher: LauncherProcess, make_task: MakeTask
) -> None:
    task = make_task("exec sleep 600")
    time_s = seconds()
    directory = launcher.task_dir(task.name)
    write_check(directory, f"sleep {time_s}; true")
    first = launcher.worker(task.name, task.stdout, task.stderr)
    target = task.create()
    assert first.watch(target)["ok"] is True
    task.start()
    wait_until(lambda: running("sleep", time_s), 10, "no check begins")
    os.kill(int(str(first.ask("hello")["pid"])), signal.SIGKILL)
    assert first.receive() is None
    first.socket.close()
    write_check(directory, "echo well")
    second = launcher.worker(task.name, task.stdout, task.stderr)
    assert second.watch(target)["health"] == STARTING
    assert second.event("health")["output"] == "well\n"
    assert running("sleep", time_s) == []
    finish(second)


def test_the_begin_of_a_large_output_is_kept_and_no_check_waits_for_a_reader(
    launcher: LauncherProcess, make_task: MakeTask
) -> None:
    task = make_task("exec sleep 600")
    write_check(launcher.task_dir(task.name), "head -c 3000000 /dev/zero | tr '\\0' x; exit 3")
    worker = launcher.worker(task.name, task.stdout, task.stderr)
    assert worker.watch(task.create())["ok"] is True
    task.start()
    change = worker.event("health")
    assert (change["code"], change["output"]) == (3, "x" * 4096)
    finish(worker)


def test_a_check_whose_command_is_missing_fails_by_name(
    launcher: LauncherProcess, make_task: MakeTask
) -> None:
    task = make_task("exec sleep 600")
    write_command(launcher.task_dir(task.name), ["/no/such/program"], retries=2)
    worker = launcher.worker(task.name, task.stdout, task.stderr)
    assert worker.watch(task.create())["ok"] is True
    task.start()
    change = worker.event("health")
    assert (change["status"], change["code"], change["failures"]) == ("unhealthy", None, 2)
    assert "cannot run" in str(change["problem"])
    assert "/no/such/program" in str(change["problem"])
    finish(worker)
