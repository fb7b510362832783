"""Tests of a real agent that is killed with other processes, in a task's start and end."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

import pytest

from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.nomad.api import NomadApi
from tests.support.nomad.leftovers import cgroups_named, pids_with
from tests.support.nomad.nomad_agent import NomadAgent
from tests.support.nomad.workload import TICKING, Workload, event, goes_on
from tests.support.waiting import wait_until
from tests.support.workers.launcher import launcher_pid, worker_pids

pytestmark = [pytest.mark.nomad, pytest.mark.containerd]

# After the stop signal the task runs on until the test allows the end.
STUBBORN = (
    "trap 'echo told' TERM; echo begun;"
    " until test -e /alloc/data/may; do sleep 0.05; done; echo last; exit 12"
)


@pytest.fixture
def kill(nomad_agent: NomadAgent, containerd: ContainerdDaemon) -> Callable[[str], None]:
    """Kills the named processes without a warning; containerd comes back at once."""

    def one(victim: str) -> None:
        assert nomad_agent.state_dir is not None
        pids: list[int] = []
        match victim:
            case "agent":
                nomad_agent.kill()
            case "containerd":
                containerd.down()
                containerd.start()
            case "plugin":
                pids = nomad_agent.plugin_pids()
            case "worker":
                pids = worker_pids(nomad_agent.state_dir)
            case "launcher":
                # The plugin starts a launcher before the next fork, so none may exist now.
                pids = [launcher_pid(nomad_agent.state_dir) or 0]
        for pid in filter(None, pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    return one


@pytest.mark.parametrize("victim", ["worker", "launcher", "containerd"])
def test_a_task_does_not_notice_that_its_agent_was_killed_with_another(
    nomad: NomadApi,
    nomad_agent: NomadAgent,
    work: Workload,
    kill: Callable[[str], None],
    victim: str,
) -> None:
    alloc = nomad.run(work.job("trap 'exit 5' TERM; " + TICKING))
    nomad.wait_log(alloc, "tick 3")
    before = work.pids()
    kill("agent")
    kill(victim)
    nomad_agent.start()
    goes_on(nomad, work, alloc, before)


@pytest.mark.parametrize(
    "victims",
    [("agent",), ("plugin",), ("agent", "plugin"), ("agent", "worker"), ("plugin", "worker")],
    ids="+".join,
)
def test_a_job_that_is_stopped_ends_with_its_code_whoever_is_killed_in_the_stop(
    nomad: NomadApi,
    nomad_agent: NomadAgent,
    work: Workload,
    containerd: ContainerdDaemon,
    kill: Callable[[str], None],
    victims: tuple[str, ...],
) -> None:
    alloc = nomad.run(work.job(STUBBORN, KillTimeout=60_000_000_000))
    nomad.wait_log(alloc, "begun")
    before = work.pids()
    nomad.stop(work.name)
    nomad.wait_log(alloc, "told")
    for victim in victims:
        kill(victim)
    (nomad_agent.alloc_root / alloc / "alloc" / "data" / "may").touch()
    if "agent" in victims:
        nomad_agent.start()
    nomad.wait_over(alloc)
    assert event(nomad, alloc, "Terminated")["Details"]["exit_code"] == "12", nomad.story(alloc)
    assert nomad.wait_log(alloc, "last") == "begun\ntold\nlast\n"
    assert before
    _nothing_left(alloc, work, containerd)


@pytest.mark.parametrize("victims", [("agent", "plugin"), ("plugin",)], ids="+".join)
def test_a_job_whose_start_is_cut_short_runs_once(
    nomad: NomadApi,
    nomad_agent: NomadAgent,
    work: Workload,
    containerd: ContainerdDaemon,
    kill: Callable[[str], None],
    victims: tuple[str, ...],
) -> None:
    nomad.submit(work.job("trap 'exit 5' TERM; " + TICKING, attempts=3))
    wait_until(lambda: nomad.allocs(work.name), 30, "no allocation")
    alloc = nomad.allocs(work.name)[0]["ID"]
    wait_until(lambda: alloc in containerd.ctr("containers", "ls"), 30, "no container")
    for victim in victims:
        kill(victim)
    if "agent" in victims:
        nomad_agent.start()
    nomad.wait_state(alloc, "running")
    nomad.wait_log(alloc, "tick 3")
    assert containerd.ctr("tasks", "ls").count(alloc) == 1
    assert containerd.ctr("containers", "ls").count(alloc) == 1
    nomad.stop_and_wait(work.name)
    _nothing_left(alloc, work, containerd)


def _nothing_left(alloc: str, work: Workload, containerd: ContainerdDaemon) -> None:
    def left() -> list[str]:
        lists = ("containers", "tasks", "snapshots", "leases")
        return [name for name in lists if alloc in containerd.ctr(name, "ls")]

    wait_until(lambda: not left(), 20, lambda: str(left()))
    wait_until(lambda: not work.pids(), 10, "a process of the task is left")
    wait_until(lambda: not cgroups_named(alloc), 10, lambda: f"{cgroups_named(alloc)} stay")
    wait_until(lambda: not _shims_of(alloc), 10, "its shim is left")


def _shims_of(alloc: str) -> list[int]:
    return [pid for pid in pids_with("containerd-shim") if pid in pids_with(alloc)]
