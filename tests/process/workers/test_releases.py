"""Tests of processes of another release under the current plugin, and the other way round.

Messages of released versions were recorded from real processes, see `tests.support.fakes.vectors`.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.actor_gateway import ActorGateway
from actors.handles.handle import VERSION as HANDLE_VERSION
from actors.handles.handle import HandleState
from actors.model.nomad import TaskConfig, TaskState
from actors.model.settings import TaskOptions
from containerd.api import methods
from proto import frames
from proto.errors import Code, DriverError
from tests.record import Tape, record
from tests.support.fakes import vectors
from tests.support.fakes.containerd import FakeContainerd
from tests.support.fakes.scripted_worker import REQUESTS, ScriptedWorker
from tests.support.fakes.shim import FakeTask
from tests.support.needs import need_root_here
from tests.support.plugin.driver import Driver
from tests.support.plugin.gateways import configured
from tests.support.waiting import wait_until
from tests.support.workers.launcher import worker_pid
from tests.support.workers.peers import LauncherProcess, LogReader
from workers import identity, protocol

IMAGE = "127.0.0.1:9/releases:1"
every_release = pytest.mark.parametrize("release", vectors.RELEASES)


class House:
    """Gateways of the current release, and the objects of another release."""

    def __init__(self, containerd: FakeContainerd, launcher: LauncherProcess, place: Path) -> None:
        self.containerd = containerd
        self.launcher = launcher
        self.driver = Driver(containerd, place)

    def gateway(self) -> contextlib.AbstractAsyncContextManager[ActorGateway]:
        """Returns a block with a configured gateway."""
        return configured(self.containerd, self.launcher.state_dir)

    def left(self, release: str) -> tuple[TaskConfig, bytes, Path]:
        """Makes a task whose handle and directory a plugin of the release made in this boot.

        The handle names the logs of this machine's task, as Nomad gives both at a recovery.
        """
        handle = vectors.on_disk(release)["handle"].record() | {"boot_id": identity.boot_id()}
        container = handle["container_id"]
        task = self.driver.task(alloc_id=container.removeprefix("t-"))
        handle |= {"stdout_path": task.config.stdout_path, "stderr_path": task.config.stderr_path}
        return task.config, frames.pack(handle), self.launcher.state_dir / "tasks" / container


@pytest.fixture
def house() -> Iterator[House]:
    """Yields a house and checks that no task left anything in the state directory or containerd."""
    need_root_here()
    with (
        tempfile.TemporaryDirectory() as place,
        FakeContainerd() as containerd,
        LauncherProcess() as launcher,
    ):
        containerd.add_image(IMAGE)
        house = House(containerd, launcher, Path(place))
        yield house
        assert containerd.leftovers() == []
        tasks = launcher.state_dir / "tasks"
        assert not tasks.exists() or list(tasks.iterdir()) == []


@pytest.fixture(scope="module")
def now() -> tuple[Tape, dict[str, Any]]:
    """Records the current release's messages and files, in the scenes of the earlier recordings."""
    need_root_here()
    return record()


def lacking(before: object, now: object, where: str) -> list[str]:
    """Returns the parts of `before` that `now` lacks; None marks values unknown then."""
    if isinstance(before, dict) and isinstance(now, dict):
        # Of log paths and the like, other names stand for other places.
        named = [key for key in before if "/" not in key]
        return [
            line
            for key in named
            for line in (
                lacking(before[key], now[key], f"{where}.{key}")
                if key in now
                else [f"{where}.{key}"]
            )
        ]
    if before is None or now is None or type(before) is type(now):
        return []
    return [f"{where}: {type(now).__name__} in the place of {type(before).__name__}"]


@every_release
def test_a_vector_reads_as_it_says(release: str) -> None:
    for way in vectors.ways(release):
        for one in vectors.load(release, way).values():
            assert one.frame() == one.reads, one.name
    for name, one in vectors.on_disk(release).items():
        assert (one.data.decode() if name == "lock" else one.record()) == one.reads, name


@every_release
def test_whoever_knows_a_release_finds_all_of_its_frames_in_this_one(
    release: str, now: tuple[Tape, dict[str, Any]]
) -> None:
    missing = []
    for way in vectors.ways(release):
        for name, one in vectors.load(release, way).items():
            told = now[0].ways[way].get(name)
            missing += (
                lacking(one.reads, told["reads"], f"{way}: {name}") if told else [f"{way}: {name}"]
            )
    assert missing == []


@every_release
def test_a_plugin_of_a_release_has_launcher_and_worker_of_this_one_do_all_it_asks(
    release: str, tmp_path: Path
) -> None:
    asks = vectors.load(release, "plugin to worker")
    says = vectors.load(release, "worker to plugin")
    with LauncherProcess() as launcher:
        task = FakeTask("old", "sleep 600", tmp_path)
        readers = [LogReader(task.stdout), LogReader(task.stderr)]
        fork = vectors.load(release, "plugin to launcher")["fork, while a task starts"].frame()
        spec: dict[str, Any] = fork["spec"]  # type: ignore[assignment]
        places = {"stdout": str(task.stdout), "stderr": str(task.stderr)}
        fork["spec"] = spec | {"dir": str(launcher.task_dir("old")), **places}
        with launcher.connect() as peer:
            peer.send(fork)
            heard = {"ready, while a task starts": peer.receive()}
            target = task.create().to_wire()
            for what in (
                "watch, while a task starts",
                "hello, while a task runs",
                "kill, while a task runs",
                "end, after a task's end",
            ):
                request = asks[what].frame()
                if request["op"] == protocol.WATCH:
                    request |= target
                heard[f"answer to {what}"] = peer.ask(
                    str(request.pop("op")), **{k: v for k, v in request.items() if k != "id"}
                )
                if "watch" in what:
                    task.start()
                if "kill" in what:
                    for event in (protocol.EXIT, protocol.DRAINED):
                        heard[f"{event}, while a task runs"] = peer.event(event)
        task.remove()
        for reader in readers:
            reader.finish()
    assert [line for n, f in heard.items() for line in lacking(says[n].reads, f, n)] == []


@every_release
async def test_a_worker_of_a_release_goes_on_under_this_plugin(house: House, release: str) -> None:
    task, handle, directory = house.left(release)
    says = vectors.load(release, "worker to plugin")
    async with ScriptedWorker(release, directory) as worker, house.gateway() as gateway:
        await gateway.recover_task(task, HANDLE_VERSION, handle)
        assert (await gateway.inspect_task(task.id)).state is TaskState.RUNNING
        usage = await anext(gateway.task_stats(task.id, 1.0))
        assert usage.timestamp_ns == says["stats, while a task runs"].reads["t_ns"]
        await gateway.stop_task(task.id, 10, "SIGTERM")
        ended = await gateway.wait_task(task.id)
        assert ended.exit_code == says["exit, while a task runs"].reads["code"]
        await gateway.destroy_task(task.id, force=False)
        assert worker.ops() == ["hello", "stats", "kill", "end"]


@every_release
async def test_an_exit_that_a_release_wrote_down_is_the_tasks(house: House, release: str) -> None:
    task, handle, directory = house.left(release)
    for name in ("exit", "exit without a shim"):
        kept = vectors.on_disk(release)[name]
        directory.mkdir(mode=0o700, parents=True)
        (directory / protocol.EXIT_RECORD).write_bytes(kept.data)
        async with house.gateway() as gateway:
            await gateway.recover_task(task, HANDLE_VERSION, handle)
            assert (await gateway.wait_task(task.id)).exit_code == kept.reads["code"]
            await gateway.destroy_task(task.id, force=False)


@every_release
def test_what_this_release_leaves_on_disk_has_all_that_a_release_reads(
    release: str, now: tuple[Tape, dict[str, Any]]
) -> None:
    missing = []
    for name, one in vectors.on_disk(release).items():
        left = now[1][name]["reads"]
        missing += lacking(one.reads, left, name)
        if isinstance(left, dict) and left["v"] != one.reads["v"]:
            missing.append(f"{name}: version {left['v']}, which {release} does not read")
    assert missing == []


async def test_a_worker_of_a_later_release_goes_on_too(house: House) -> None:
    task, handle, directory = house.left("1.0.0")
    later = {
        "v": protocol.OLDEST,
        "v_max": protocol.VERSION + 3,
        "mood": "good",
        "release": "99.0.0",
    }
    async with (
        ScriptedWorker("1.0.0", directory, adds=later) as worker,
        house.gateway() as gateway,
    ):
        await gateway.recover_task(task, HANDLE_VERSION, handle)
        await anext(gateway.task_stats(task.id, 1.0))
        await gateway.signal_task(task.id, "SIGTERM")
        assert (await gateway.wait_task(task.id)).exit_code == 143
        await gateway.destroy_task(task.id, force=False)
        assert worker.ops() == ["hello", "stats", "kill", "end"]


async def test_what_a_worker_does_not_know_is_done_another_way_or_told(house: House) -> None:
    task, handle, directory = house.left("1.0.0")
    knows = REQUESTS - {protocol.KILL, protocol.STATS}
    async with ScriptedWorker("1.0.0", directory, knows=knows), house.gateway() as gateway:
        await gateway.recover_task(task, HANDLE_VERSION, handle)
        with pytest.raises(DriverError, match=r"it is of release 1\.0\.0") as caught:
            await anext(gateway.task_stats(task.id, 1.0))
        assert caught.value.code is Code.UNSUPPORTED
        await gateway.signal_task(task.id, "SIGTERM")
        assert methods.TASK_KILL.path in {call.path for call in house.containerd.calls}
        await gateway.destroy_task(task.id, force=True)


async def test_a_worker_without_a_version_in_common_is_replaced_and_its_task_lives(
    house: House,
) -> None:
    job = house.driver.task()
    job.read_logs()
    options = TaskOptions(
        image=IMAGE, image_pull_policy="never", command="/bin/sleep", args=("600",)
    )
    async with house.gateway() as gateway:
        started = await gateway.start_task(job.config, options)
    state = HandleState.decode(started.handle_version, started.driver_state)
    directory = house.launcher.state_dir / "tasks" / state.container_id
    with house.launcher.control(f"tasks/{state.container_id}") as real:
        real.ask(protocol.END)
    wait_until(lambda: worker_pid(directory) is None, 10, "the worker goes on")
    other = {"v": protocol.VERSION + 4, "v_max": protocol.VERSION + 6}
    async with (
        ScriptedWorker("1.0.0", directory, adds=other) as worker,
        house.gateway() as gateway,
    ):
        await gateway.recover_task(job.config, started.handle_version, started.driver_state)
        assert worker.ops() == ["hello", "end"]
        assert worker_pid(directory) is not None
        await gateway.stop_task(job.id, 10, "SIGTERM")
        assert (await gateway.wait_task(job.id)).exit_code == 143
        await gateway.destroy_task(job.id, force=False)


@pytest.mark.parametrize(
    ("stated", "agreed"),
    [
        ({}, protocol.VERSION),
        ({"v": protocol.VERSION}, protocol.VERSION),
        ({"v": protocol.OLDEST, "v_max": protocol.VERSION + 7}, protocol.VERSION),
        ({"v": protocol.OLDEST - 1, "v_max": protocol.OLDEST}, protocol.OLDEST),
        ({"v": protocol.VERSION + 1}, None),
        ({"v": protocol.VERSION + 1, "v_max": protocol.VERSION + 2}, None),
        ({"v": protocol.OLDEST - 1}, None),
        ({"v": "1"}, None),
        ({"v": 1, "v_max": None}, None),
    ],
)
def test_two_processes_speak_the_newest_version_that_both_know(
    stated: dict[str, object], agreed: int | None
) -> None:
    if agreed is not None:
        assert protocol.agree(stated) == agreed
        return
    with pytest.raises(DriverError, match="no version in common") as caught:
        protocol.agree(stated)
    assert caught.value.code is Code.UNSUPPORTED


def test_every_release_before_the_newest_of_the_changes_is_recorded() -> None:
    changes = (vectors.DIRECTORY.parents[1] / "CHANGES.md").read_text()
    _, *released = re.findall(r"^## ([0-9.]+)$", changes, re.MULTILINE)
    assert {*released, "1.0.0"} <= set(vectors.RELEASES), "./dev vectors, in its last commit"
