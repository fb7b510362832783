"""Tests of `shim_per = "alloc"`: one shim for an allocation, whichever task comes, goes or dies."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from actors.lifecycle import leaked_shims
from containerd.api.client import Containerd
from plugin.host.agent.session import Handle
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.kernel.traces import processes_of
from tests.support.needs import need_program
from tests.support.plugin.driver import Driver, Job, launched
from tests.support.plugin.victims import CONTAINERD, LAUNCHER, PLUGIN, WORKER, Victims, runs
from tests.support.waiting import until
from workers.protocol import LOST_CODE

pytestmark = pytest.mark.containerd

SLEEPER = "echo ready; sleep 600 & wait"
COUNTER = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done"
AROUND = [(), (LAUNCHER,), (CONTAINERD,), (PLUGIN,), (WORKER,), (WORKER, CONTAINERD)]


@pytest.fixture
def sharing(containerd: ContainerdDaemon, tmp_path: Path) -> Iterator[Driver]:
    """Yields a driver with one shim for an allocation; checks that nothing is left."""
    made = Driver(containerd, tmp_path, {"shim_per": "alloc"})
    try:
        yield made
        made.wait_clean()
        assert not living(containerd)
    finally:
        made.close()


def living(daemon: ContainerdDaemon) -> list[int]:
    """Returns the shims of a containerd that do not end by themselves."""
    return [pid for pid in daemon.shim_pids() if runs(pid)]


async def all_ended(daemon: ContainerdDaemon) -> None:
    await until(lambda: not living(daemon), 10, "a shim is left")


class Alloc:
    """Tasks of one allocation."""

    def __init__(self, driver: Driver, image: str) -> None:
        self.driver = driver
        self.image = image
        self.id = str(uuid.uuid4())
        self.handles: dict[str, Handle] = {}

    def task(self, name: str) -> Job:
        """Creates a task of the allocation, with log FIFOs of its own."""
        job = self.driver.task(name)
        task_id = f"{self.id}/{name}/{job.id.rpartition('/')[2]}"
        return replace(job, config=replace(job.config, id=task_id, alloc_id=self.id))

    async def start(self, name: str, script: str = SLEEPER, **options: object) -> Job:
        """Starts a task and waits for its first line."""
        job = self.task(name)
        self.handles[name] = await self.driver.start(job, self.image, script, **options)
        await until(lambda: job.out, 10, f"{name} prints nothing")
        return job

    async def still_works(self, job: Job) -> None:
        """Checks that a task can be asked, entered and stopped, and that its exit is reported."""
        said = await self.driver.session.exec(job.id, ["echo", "hello"])
        assert said.stdout == b"hello\n"
        await self.driver.session.stop(job.id, 5.0, "SIGKILL")
        assert (await self.driver.session.wait(job.id)).signal == signal.SIGKILL
        await self.driver.end(job)


async def test_tasks_of_an_allocation_share_a_shim_and_other_allocations_do_not(
    sharing: Driver, containerd: ContainerdDaemon, busybox_image: str
) -> None:
    async with launched(sharing):
        alloc, other = Alloc(sharing, busybox_image), Alloc(sharing, busybox_image)
        jobs = [await alloc.start("a"), await alloc.start("b"), await other.start("a")]
        assert len(living(containerd)) == 2
        for job in jobs:
            await alloc.still_works(job)
        await all_ended(containerd)


async def test_tasks_that_start_together_share_a_shim(
    sharing: Driver, containerd: ContainerdDaemon, busybox_image: str
) -> None:
    async with launched(sharing):
        alloc = Alloc(sharing, busybox_image)
        jobs = await asyncio.gather(*(alloc.start(f"t{number}") for number in range(6)))
        assert len(living(containerd)) == 1
        await asyncio.gather(*(sharing.end(job) for job in jobs))
        await all_ended(containerd)


async def test_the_shim_outlives_the_task_that_it_was_started_for_and_ends_after_the_last(
    sharing: Driver, containerd: ContainerdDaemon, busybox_image: str
) -> None:
    async with launched(sharing):
        alloc = Alloc(sharing, busybox_image)
        prestart = await alloc.start("prestart", "echo done")
        main = await alloc.start("main")
        (shim,) = living(containerd)
        assert (await sharing.session.wait(prestart.id)).exit_code == 0
        await sharing.end(prestart)
        side = await alloc.start("side", COUNTER)
        again = await alloc.start("prestart")
        assert living(containerd) == [shim]
        await alloc.still_works(again)
        await sharing.session.stop(side.id, 5.0, "SIGTERM")
        assert (await sharing.session.wait(side.id)).exit_code == 7
        await sharing.end(side)
        poststop = await alloc.start("poststop")
        await alloc.still_works(main)
        assert living(containerd) == [shim]
        await alloc.still_works(poststop)
        await all_ended(containerd)


async def test_a_repeated_removal_of_a_task_does_not_end_the_shim_of_the_others(
    sharing: Driver, containerd: ContainerdDaemon, busybox_image: str
) -> None:
    async with launched(sharing):
        alloc = Alloc(sharing, busybox_image)
        first, second = await alloc.start("a"), await alloc.start("b")
        await sharing.end(first)
        client = Containerd(containerd.address, containerd.namespace)
        await leaked_shims.end(client, first.container)
        await client.close()
        # A start that fails after its Create runs the same steps in its undo.
        failing = alloc.task("a")
        with pytest.raises(Exception, match="no-such-program"):
            await sharing.start(failing, busybox_image, command="/no-such-program")
        await alloc.still_works(second)
        await all_ended(containerd)


async def test_a_task_that_containerd_forgot_is_removed_and_its_neighbour_goes_on(
    sharing: Driver, containerd: ContainerdDaemon, busybox_image: str
) -> None:
    async with launched(sharing):
        alloc = Alloc(sharing, busybox_image)
        first, second = await alloc.start("a"), await alloc.start("b")
        processes = processes_of(first.container)
        forget(containerd, first.container)
        await sharing.end(first)
        await until(lambda: not any(runs(pid) for pid in processes), 10, "a process is left")
        first = await alloc.start("a")
        assert len(living(containerd)) == 1
        await alloc.still_works(second)
        await alloc.still_works(first)
        await all_ended(containerd)


async def test_the_shim_ends_with_the_removal_of_the_last_task_that_containerd_forgot(
    sharing: Driver, containerd: ContainerdDaemon, busybox_image: str
) -> None:
    async with launched(sharing):
        alloc = Alloc(sharing, busybox_image)
        first, second = await alloc.start("a"), await alloc.start("b")
        processes = processes_of(second.container)
        await sharing.end(first)
        forget(containerd, second.container)
        await sharing.end(second)
        await until(lambda: not any(runs(pid) for pid in processes), 10, "a process is left")
        await all_ended(containerd)


def forget(daemon: ContainerdDaemon, container: str) -> None:
    """Makes containerd forget a task, as when a client dies amid a Create or a Delete."""
    daemon.down()
    (bundle,) = daemon.base.glob(f"**/{container}/config.json")
    subprocess.run(["umount", "--lazy", bundle.parent / "rootfs"], check=True)
    shutil.rmtree(bundle.parent)
    daemon.start()


async def test_tasks_with_different_runtimes_do_not_share_a_shim(
    runtimes_daemon: ContainerdDaemon, busybox_image: str, tmp_path: Path
) -> None:
    need_program("crun")
    driver = Driver(runtimes_daemon, tmp_path, {"shim_per": "alloc"})
    async with launched(driver):
        alloc = Alloc(driver, busybox_image)
        jobs = [
            await alloc.start(f"{runtime}{number}", runtime=runtime)
            for number in range(2)
            for runtime in ("runc", "crun")
        ]
        assert len(living(runtimes_daemon)) == 2
        for job in jobs:
            await alloc.still_works(job)
        await all_ended(runtimes_daemon)
    driver.wait_clean()
    driver.close()


async def test_a_task_beyond_its_memory_is_reported_and_its_neighbour_goes_on(
    sharing: Driver, containerd: ContainerdDaemon, busybox_image: str
) -> None:
    async with launched(sharing) as session:
        alloc = Alloc(sharing, busybox_image)
        neighbour = await alloc.start("a")
        greedy = await alloc.start("b", "echo ready; exec tail /dev/zero")
        assert (await session.wait(greedy.id)).oom_killed
        await sharing.end(greedy)
        await alloc.still_works(neighbour)
        await all_ended(containerd)


@pytest.mark.parametrize("before", ["alloc", "task"])
async def test_tasks_go_on_when_the_option_changes(
    sharing: Driver, containerd: ContainerdDaemon, busybox_image: str, tmp_path: Path, before: str
) -> None:
    own = Driver(containerd, tmp_path)  # the same driver with shim_per = "task"
    earlier, later = (sharing, own) if before == "alloc" else (own, sharing)
    alloc = Alloc(earlier, busybox_image)
    async with launched(earlier):
        first, second = await alloc.start("a"), await alloc.start("b")
        assert len(living(containerd)) == {"alloc": 1, "task": 2}[before]
    alloc.driver = later
    async with launched(later) as session:
        for handle in alloc.handles.values():
            await session.recover(handle)
        third, fourth = await alloc.start("c"), await alloc.start("d")
        assert len(living(containerd)) == 3
        await later.end(first)
        first = await alloc.start("a")
        await alloc.still_works(second)
        second = await alloc.start("b")
        # containerd finds all shims again.
        containerd.down()
        await asyncio.to_thread(containerd.start)
        await later.healthy()
        for job in (third, first, fourth, second):
            await alloc.still_works(job)
        await all_ended(containerd)


@pytest.mark.parametrize("victims", AROUND, ids=lambda victims: "+".join(("shim", *victims)))
async def test_all_tasks_of_a_killed_shim_are_lost_with_the_reason_and_can_start_again(
    sharing: Driver, containerd: ContainerdDaemon, busybox_image: str, victims: tuple[str, ...]
) -> None:
    async with launched(sharing) as session:
        alloc = Alloc(sharing, busybox_image)
        jobs = [alloc.task(name) for name in "abc"]
        handles = [await sharing.start(job, busybox_image, SLEEPER) for job in jobs]
        bystander = Alloc(sharing, busybox_image).task("a")
        handles.append(await sharing.start(bystander, busybox_image, SLEEPER))
        await until(lambda: all(job.out for job in (*jobs, bystander)), 10)
        around = [Victims(sharing, job) for job in jobs]
        shim = next(pid for pid in living(containerd) if holds(pid, jobs[0].container))
        around[0].kill(*victims)
        os.kill(shim, signal.SIGKILL)
        await around[0].bring_back(*victims, handle=handles[0])
        if PLUGIN in victims:
            for handle in handles[1:]:
                await session.recover(handle)
        for job in jobs:
            result = await session.wait(job.id)
            assert result.exit_code == LOST_CODE
            assert "shim" in result.error or "containerd has no such task" in result.error
        again = []
        for name, job in zip("abc", jobs, strict=True):
            await sharing.end(job)
            again.append(await alloc.start(name))
        assert len(living(containerd)) == 2
        for job in again:
            await alloc.still_works(job)
        await alloc.still_works(bystander)
        await all_ended(containerd)


def holds(shim: int, container: str) -> bool:
    """Returns whether a shim was started for a container."""
    return container.encode() in Path(f"/proc/{shim}/cmdline").read_bytes().split(b"\0")
