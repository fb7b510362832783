"""Tests of orphans of each kind on a real containerd, made by kills, next to objects that stay."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from actors.model import identifiers
from actors.model.nomad import TaskState
from containerd.api.client import Containerd
from containerd.api.records import ContainerRecord
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.plugin.driver import Driver, Job
from tests.support.plugin.plugin_dir import ROOT
from tests.support.waiting import until
from tests.support.workers.launcher import worker_pid
from tests.support.workers.peers import has_ended

pytestmark = pytest.mark.containerd

NODE = "4b1ff0a4-8d0c-4e6f-9b6d-000000000001"
SOON = {"period": "200ms", "creation_grace": "500ms"}
SLEEPER = "echo up; exec sleep 600"
DEADLINE_S = 30.0


@pytest.fixture
def driver(containerd: ContainerdDaemon, tmp_path: Path) -> Iterator[Driver]:
    """Yields a driver that sweeps five times a second."""
    made = Driver(containerd, tmp_path, {"gc": {"dangling_containers": SOON}})
    yield made
    try:
        made.wait_clean()
    finally:
        made.close()


class Scene:
    """A task that the node knows, and forgotten tasks, on one containerd."""

    def __init__(self, driver: Driver, image: str) -> None:
        self.driver = driver
        self.daemon = driver.containerd
        self.image = image
        self.client = Containerd(self.daemon.address, self.daemon.namespace)

    async def lost(self, node: str = NODE) -> Job:
        """Starts a task and kills the plugin; the next plugin runs."""
        job = self.driver.task(node_id=node)
        await self.driver.start(job, self.image, SLEEPER)
        lease = identifiers.lease_id(job.container)
        await until(lambda: lease not in self.daemon.leftovers(), DEADLINE_S)
        self.driver.session.kill_plugin()
        await self.driver.session.launch()
        return job

    def directory(self, job: Job) -> Path:
        return self.driver.state_dir / "tasks" / job.container

    def traces(self, job: Job) -> list[str]:
        found = [line for line in self.daemon.leftovers() if job.config.alloc_id in line]
        return found + [str(path) for path in (self.directory(job),) if path.exists()]

    async def end(self, job: Job) -> None:
        """Kills a task's process and deletes the task in containerd, as an operator might."""
        await self.client.tasks.kill(job.container, signal.SIGKILL, everyone=True)
        await until((self.directory(job) / "exit").exists, DEADLINE_S)
        await self.client.tasks.delete(job.container)

    async def end_worker(self, job: Job) -> None:
        pid = worker_pid(self.directory(job))
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: worker_pid(self.directory(job)) is None, DEADLINE_S)


async def running(scene: Scene, job: Job) -> None:
    """Checks that the container runs and the worker watches."""
    assert worker_pid(scene.directory(job)) is not None


async def without_worker(scene: Scene, job: Job) -> None:
    await scene.end_worker(job)


async def without_task(scene: Scene, job: Job) -> None:
    await scene.end(job)


async def snapshot_alone(scene: Scene, job: Job) -> None:
    await scene.end(job)
    await scene.end_worker(job)
    await scene.client.containers.delete(job.container)
    # A collection of containerd leaves the snapshot alone: the snapshot is a root.
    scene.driver.daemon.ctr("leases", "create", "--id", "passing")
    scene.driver.daemon.ctr("leases", "delete", "--sync", "passing")
    assert f"snapshot {identifiers.snapshot_key(job.container)}" in scene.driver.daemon.leftovers()


async def lease_alone(scene: Scene, job: Job) -> None:
    record = await scene.client.containers.get(job.container)
    assert record is not None
    lease = identifiers.lease_id(job.container)
    await scene.client.leases.create(lease, expire_s=3600, labels=record.labels)
    await scene.end(job)
    await scene.end_worker(job)
    await scene.client.containers.delete(job.container)


async def worker_alone(scene: Scene, job: Job) -> None:
    await scene.end(job)
    await scene.client.containers.delete(job.container)
    assert worker_pid(scene.directory(job)) is not None


async def directory_alone(scene: Scene, job: Job) -> None:
    await worker_alone(scene, job)
    await scene.end_worker(job)


Cut = Callable[[Scene, Job], Awaitable[None]]
CUTS = [
    running,
    without_worker,
    without_task,
    snapshot_alone,
    lease_alone,
    worker_alone,
    directory_alone,
]


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: cut.__name__)
async def test_an_orphan_goes_and_the_task_beside_it_stays(
    driver: Driver, busybox_image: str, cut: Cut
) -> None:
    scene = Scene(driver, busybox_image)
    await driver.session.launch()
    orphan = await scene.lost()
    pid = worker_pid(scene.directory(orphan))
    assert pid is not None
    await cut(scene, orphan)
    assert scene.traces(orphan)
    kept = driver.task(node_id=NODE)
    await driver.start(kept, busybox_image, SLEEPER)
    await until(lambda: not scene.traces(orphan), DEADLINE_S, lambda: str(scene.traces(orphan)))
    await until(lambda: has_ended(pid), DEADLINE_S, "its worker stays")
    assert (await driver.session.inspect(kept.id)).state is TaskState.RUNNING
    assert (await driver.session.exec(kept.id, ["/bin/echo", "a"])).stdout == b"a\n"
    await driver.end(kept)
    await driver.session.close()
    await scene.client.close()


async def test_what_others_have_in_the_namespace_stays(driver: Driver, busybox_image: str) -> None:
    scene = Scene(driver, busybox_image)
    await driver.session.launch()
    far = await scene.lost(node="another-node")
    ours = await scene.client.containers.get(far.container)
    assert ours is not None
    foreign = {
        # A user's container, a name like the driver's names, and a copy of the driver's labels.
        "web": {"team": "a"},
        "t-6d2ce4c6-1111-4111-8111-000000000000": {},
        "copy": dict(ours.labels),
    }
    for name, labels in foreign.items():
        record = ContainerRecord(
            id=name,
            labels=labels,
            image=ours.image,
            runtime=ours.runtime,
            spec_json=ours.spec_json,
            snapshotter=ours.snapshotter,
            snapshot_key="",
        )
        await scene.client.containers.create(record)
    await scene.client.leases.create("nomad-driver-containerd-x", expire_s=600, labels={})
    orphan = await scene.lost()
    kept = driver.task(node_id=NODE)
    await driver.start(kept, busybox_image, SLEEPER)
    await until(lambda: not scene.traces(orphan), DEADLINE_S)
    left = scene.daemon.leftovers()
    assert {f"container {name}" for name in foreign} <= set(left)
    assert "lease nomad-driver-containerd-x" in left
    assert f"task {far.container}" in left
    for name in foreign:
        await scene.client.containers.delete(name)
    await scene.client.leases.delete("nomad-driver-containerd-x")
    await driver.end(kept)
    await driver.session.close()
    await scene.client.close()
    give_up(driver, "another-node")


def gc(driver: Driver, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-I", str(ROOT / "plugin/main.py"), "gc", *words),
            *("--config", f"containerd_address={driver.containerd.address}"),
            *("--config", f"containerd_namespace={driver.containerd.namespace}"),
            *("--config", f"state_dir={driver.state_dir}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def give_up(driver: Driver, node: str) -> None:
    """Removes everything of a node with the operator's command."""
    done = gc(driver, "--node", node, "--grace", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "removed" in done.stdout


def rows(done: subprocess.CompletedProcess[str]) -> list[tuple[str, str, str]]:
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [(line["kind"], line["outcome"], line["why"]) for line in lines]


async def test_the_command_leaves_a_node_its_tasks_until_it_is_given_up(
    driver: Driver, busybox_image: str
) -> None:
    await driver.session.launch()
    job = driver.task(node_id=NODE)
    handle = await driver.start(job, busybox_image, SLEEPER)
    # The task's plugin lives: the task is no orphan, and the node must not be given up.
    assert gc(driver).stdout == "nothing is left over\n"
    refused = gc(driver, "--node", NODE)
    assert refused.returncode == 1
    assert f"--node {NODE}: a plugin of this node is running" in refused.stderr

    # The agent is away, for however long.
    driver.session.kill_plugin()
    kept = [("container", "kept", f"node {NODE} may come back for the task")]
    assert rows(gc(driver, "--json", "--grace", "0")) == kept
    assert rows(gc(driver, "--json", "--node", NODE, "--grace", "1h"))[0][1] == "waits"
    dry = gc(driver, "--json", "--node", NODE, "--grace", "0", "--dry-run")
    assert rows(dry) == [("container", "orphan", f"node {NODE} is given up")]
    await driver.session.launch()
    await driver.session.recover(handle)
    assert (await driver.session.inspect(job.id)).state is TaskState.RUNNING

    # Another plugin than the creator has the task now: the task is watched.
    other = gc(driver, "--node", "other", "--grace", "0")
    assert other.stdout == "nothing is left over\n"
    assert other.stderr == "--node other: no object belongs to a node with this id\n"
    driver.session.kill_plugin()
    give_up(driver, NODE)
    assert driver.leftovers() == []
    await driver.session.close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--grace", "soon"), '--grace: invalid duration "soon"'),
        (("--config", "state_dir=x"), "state_dir: "),
    ],
)
def test_wrong_options_are_told(driver: Driver, words: tuple[str, ...], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-I", str(ROOT / "plugin/main.py"), "gc", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert driver.leftovers() == []


def test_without_containerd_nothing_is_told_or_removed(tmp_path: Path) -> None:
    nobody = ["--config", f"containerd_address={tmp_path}/containerd.sock"]
    done = subprocess.run(
        [
            *(sys.executable, "-I", str(ROOT / "plugin/main.py"), "gc"),
            *("--config", f"state_dir={tmp_path}", *nobody),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert f"containerd does not answer at {tmp_path}/containerd.sock" in done.stderr
