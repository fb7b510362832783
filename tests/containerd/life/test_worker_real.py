"""A worker and a real shim, where the fake cannot stand in: the kernel's numbers, a dead daemon."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.daemons.shim_tasks import RealTask, import_image
from tests.support.workers.peers import LauncherProcess, LogReader, Peer, has_ended
from workers.protocol import LOST_CODE

pytestmark = pytest.mark.containerd
MakeTask = Callable[..., tuple[RealTask, Peer]]


@pytest.fixture(scope="module")
def daemon() -> Iterator[ContainerdDaemon]:
    """Yields a containerd that the tests may kill."""
    with ContainerdDaemon() as running:
        yield running


@pytest.fixture(scope="module")
def chain_id(daemon: ContainerdDaemon, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Unpacks an image in the containerd."""
    return import_image(daemon, tmp_path_factory.mktemp("image"))


@pytest.fixture
def make_task(daemon: ContainerdDaemon, chain_id: str) -> Iterator[MakeTask]:
    """Makes started tasks with a watching worker, and removes the tasks at the end."""
    made: list[tuple[RealTask, Peer]] = []
    with LauncherProcess() as launcher:

        def make(script: str, memory_bytes: int = 0) -> tuple[RealTask, Peer]:
            name = f"real-{os.getpid()}-{len(made)}"
            task = RealTask(daemon, chain_id, name, script, launcher.state_dir)
            worker = launcher.worker(name, task.stdout, task.stderr)
            made.append((task, worker))
            assert worker.watch(task.create(memory_bytes))["ok"] is True
            task.start()
            return task, worker

        yield make
        if daemon.process is None:
            daemon.start()
        for task, worker in made:
            worker.socket.close()
            task.remove()


def test_a_task_that_is_killed_for_its_memory_is_counted(make_task: MakeTask) -> None:
    _, worker = make_task("exec tail /dev/zero", 16 << 20)
    event = worker.event("exit")
    assert event["code"] == 128 + signal.SIGKILL
    assert event["oom_kills"] == 1


def test_the_cgroup_of_a_task_tells_its_memory_and_cpu(make_task: MakeTask) -> None:
    task, worker = make_task("while :; do :; done")
    assert worker.ask("stats", interval_ms=100)["ok"] is True
    first = worker.event("stats")
    for _ in range(4):
        last = worker.event("stats")
    used = int(str(last["cpu_total_ns"])) - int(str(first["cpu_total_ns"]))
    passed = int(str(last["t_ns"])) - int(str(first["t_ns"]))
    # A shell that spins: some time of one core, and never more than the whole core.
    assert 0.05 * passed < used < 1.2 * passed
    for field in ("usage", "rss", "max_usage"):
        assert 4096 <= int(str(last[field])) < 1 << 28, field
    assert task.pid


def test_the_exit_arrives_while_containerd_is_dead(
    make_task: MakeTask, daemon: ContainerdDaemon
) -> None:
    task, worker = make_task("sleep 1; echo still here; exit 9")
    reader = LogReader(task.stdout)
    daemon.kill()
    event = worker.event("exit")
    assert (event["code"], event["lost"]) == (9, False)
    assert worker.event("drained")["complete"] is True
    assert reader.finish() == b"still here\n"


def test_a_container_that_outlives_its_shim_and_containerd_is_killed_before_it_counts_as_lost(
    make_task: MakeTask, daemon: ContainerdDaemon
) -> None:
    task, worker = make_task("exec sleep 60")
    daemon.kill()
    task.kill_shim()
    event = worker.event("exit")
    assert (event["code"], event["lost"]) == (LOST_CODE, True)
    assert "was killed" in str(event["reason"])
    assert has_ended(task.pid)
