"""The death of the plugin or the host under Nomad's own loader: tasks go on and are recovered."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.nomad.go_host import GoHost, HostError, HostTask
from tests.support.nomad.leftovers import pids_with
from tests.support.nomad.scripts import TICKING, Scripts, finish, in_containerd
from tests.support.waiting import wait_until
from tests.support.workers.peers import has_ended

pytestmark = [pytest.mark.nomad, pytest.mark.containerd]


def test_a_task_outlives_its_plugin_and_is_recovered(nomad_host: GoHost, scripts: Scripts) -> None:
    task = nomad_host.run(scripts.config("trap 'exit 4' TERM; " + TICKING))
    task.wait_log("tick 2")
    before = scripts.pids()
    waiting = nomad_host.send("wait", task_id=task.id)
    nomad_host.call("kill_plugin")
    with pytest.raises(HostError, match="plugin is shut down"):
        waiting.result(20)
    nomad_host.call("recover", task_id=task.id)
    _goes_on(nomad_host, scripts, task, before)


def test_a_plugin_told_to_terminate_is_gone_before_nomad_would_give_its_tasks_up(
    nomad_host: GoHost, scripts: Scripts
) -> None:
    task = nomad_host.run(scripts.config("trap 'exit 4' TERM; " + TICKING))
    task.wait_log("tick 2")
    before = scripts.pids()
    waiting = nomad_host.send("wait", task_id=task.id)
    nomad_host.call("kill_plugin", signal="SIGTERM")
    with pytest.raises(HostError, match="plugin is shut down"):
        waiting.result(20)
    nomad_host.call("recover", task_id=task.id)
    _goes_on(nomad_host, scripts, task, before)


def test_a_plugin_ignores_the_sigint_of_a_terminal(nomad_host: GoHost) -> None:
    pid = nomad_host.plugin_pid()
    os.kill(pid, signal.SIGINT)
    assert nomad_host.call("schema")["schema"]
    assert nomad_host.plugin_pid() == pid


def test_a_new_host_finds_the_plugin_of_a_crashed_one_and_its_task(
    make_host: Callable[[], GoHost], scripts: Scripts
) -> None:
    host = make_host()
    host.start()
    reattach = host.launch()["reattach"]
    task = host.task(scripts.config("trap 'exit 4' TERM; " + TICKING))
    handle = host.begin(task)["handle"]
    task.wait_log("tick 2")
    before = scripts.pids()
    host.kill()
    host.start()
    answer = host.launch(reattach=reattach)
    if answer["reattach"]["Pid"] != reattach["Pid"]:
        wait_until(lambda: has_ended(reattach["Pid"]), 20, "an orphaned plugin")
    host.call("recover", handle=handle, task=task.to_wire())
    _goes_on(host, scripts, task, before)


def test_a_new_host_and_a_new_plugin_recover_a_task_from_its_handle_alone(
    make_host: Callable[[], GoHost], scripts: Scripts
) -> None:
    host = make_host()
    host.start()
    host.launch()
    task = host.task(scripts.config("trap 'exit 4' TERM; " + TICKING))
    handle = host.begin(task)["handle"]
    task.wait_log("tick 2")
    before = scripts.pids()
    host.quit()
    wait_until(lambda: not pids_with(str(host.plugins)), 10, "the plugin outlives its host")
    host.start()
    host.launch()
    host.call("recover", handle=handle, task=task.to_wire())
    _goes_on(host, scripts, task, before)


def test_an_exit_while_no_plugin_was_there_is_known_to_the_next(
    make_host: Callable[[], GoHost], scripts: Scripts
) -> None:
    host = make_host()
    host.start()
    host.launch()
    script = "echo begun; while test ! -e /alloc/data/end; do sleep 0.05; done; echo last; exit 12"
    task = host.task(scripts.config(script))
    handle = host.begin(task)["handle"]
    task.wait_log("begun")
    host.quit()
    (task.alloc_dir / "alloc" / "data" / "end").touch()
    wait_until(lambda: not scripts.pids(), 10, "the task does not end")
    host.start()
    host.launch()
    host.call("recover", handle=handle, task=task.to_wire())
    assert host.call("wait", task_id=task.id)["exit_code"] == 12
    assert task.wait_log("last") == "begun\nlast\n"
    host.end(task)


def test_a_start_that_is_repeated_on_a_new_plugin_gives_one_container(
    nomad_host: GoHost, scripts: Scripts, containerd: ContainerdDaemon
) -> None:
    task = nomad_host.task(scripts.config("trap 'exit 4' TERM; echo begin; " + TICKING))
    nomad_host.begin(task)
    task.wait_log("begin")
    nomad_host.call("kill_plugin")
    nomad_host.begin(task)
    assert containerd.ctr("containers", "ls").count(task.alloc_id) == 1
    wait_until(lambda: len(_shells(scripts)) == 1, 10, lambda: str(_shells(scripts)))
    assert finish(nomad_host, task)["exit_code"] == 4
    wait_until(lambda: not in_containerd(containerd, task.alloc_id), 10)


def test_recovering_a_task_whose_container_is_gone_is_an_error_and_destroy_cleans_up(
    nomad_host: GoHost, scripts: Scripts, containerd: ContainerdDaemon
) -> None:
    task = nomad_host.run(scripts.config(TICKING))
    gone = nomad_host.begin(nomad_host.task(scripts.config("true")))["handle"]
    nomad_host.call("destroy", task_id=gone["Config"]["ID"], force=True)
    nomad_host.call("kill_plugin")
    other = nomad_host.task(scripts.config("true"))
    with pytest.raises(HostError):
        nomad_host.call("recover", handle=gone, task=other.to_wire())
    nomad_host.call("destroy", task_id=gone["Config"]["ID"], force=True)
    assert not in_containerd(containerd, gone["Config"]["AllocID"])
    nomad_host.call("destroy", task_id=task.id, force=True)
    wait_until(
        lambda: not in_containerd(containerd, task.alloc_id),
        10,
        "a task that this plugin never recovered is not removed by its id",
    )


def _shells(scripts: Scripts) -> list[int]:
    words = [
        (pid, Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")) for pid in scripts.pids()
    ]
    return [pid for pid, arguments in words if arguments[0] == b"sh"]


def _goes_on(host: GoHost, scripts: Scripts, task: HostTask, before: list[int]) -> None:
    """Checks that the same process still runs, answers every call, and logs without a gap."""
    seen = task.log().count("tick")
    wait_until(lambda: task.log().count("tick") > seen + 5, 20, "the log stands still")
    assert set(before) & set(scripts.pids())
    assert host.call("inspect", task_id=task.id)["status"]["State"] == "running"
    assert host.exec(task, "echo", "here") == (0, "here\n", "")
    assert host.call("stats", task_id=task.id, interval_s=1, count=1)["samples"]
    assert finish(host, task)["exit_code"] == 4
    lines = task.log().splitlines()
    assert lines == [f"tick {number}" for number in range(len(lines))]
