"""Tests of the plugin's connections to workers: none outlives the owner."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.actor_gateway import ActorGateway
from actors.lifecycle.running import RunningTask
from actors.model.settings import TaskOptions
from actors.processes.worker_link import WorkerLink
from actors.task import worker_replacement
from proto import frames
from tests.support.fakes.containerd import FakeContainerd
from tests.support.needs import need_root_here
from tests.support.plugin.driver import Driver, Job
from tests.support.plugin.gateways import configured
from tests.support.waiting import slowed, until
from tests.support.workers.launcher import worker_pid
from tests.support.workers.peers import ANSWER_S, LauncherProcess
from workers import protocol
from workers.protocol import ExitRecord

IMAGE = "127.0.0.1:9/links:1"


class House:
    """A containerd, a launcher, and one task."""

    def __init__(self, containerd: FakeContainerd, launcher: LauncherProcess, place: Path) -> None:
        self.launcher = launcher
        self._containerd = containerd
        self._driver = Driver(containerd, place)

    def gateway(self) -> contextlib.AbstractAsyncContextManager[ActorGateway]:
        """Returns a block with a configured gateway."""
        return configured(self._containerd, self.launcher.state_dir)

    async def start(self, gateway: ActorGateway) -> Job:
        """Starts a task and returns once the task runs."""
        job = self._driver.task()
        job.read_logs()
        options = TaskOptions(
            image=IMAGE, image_pull_policy="never", command="/bin/sleep", args=("600",)
        )
        await gateway.start_task(job.config, options)
        return job


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Yields a house and ends the house's tasks after the test."""
    need_root_here()
    with FakeContainerd() as containerd, LauncherProcess() as launcher:
        containerd.add_image(IMAGE)
        yield House(containerd, launcher, tmp_path)
        containerd.remove_all()


async def test_a_plugin_that_is_shut_down_lets_go_of_its_workers(house: House) -> None:
    async with house.gateway() as gateway:
        job = await house.start(gateway)
    with house.launcher.control(f"tasks/{job.container}") as peer:
        await until(lambda: peer.ask(protocol.HELLO)["peers"] == 0, ANSWER_S, "it is connected")


async def test_a_worker_that_is_made_while_its_task_is_removed_keeps_no_connection(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, removed = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)

    async def attach(_: RunningTask) -> tuple[WorkerLink | None, ExitRecord | None]:
        asked.set()
        await removed.wait()
        return WorkerLink(*await asyncio.open_unix_connection(sock=ours)), None

    async with house.gateway() as gateway:
        job = await house.start(gateway)
        monkeypatch.setattr(worker_replacement, "attach", attach)
        worker = worker_pid(house.launcher.state_dir / "tasks" / job.container)
        assert worker is not None
        os.kill(worker, signal.SIGKILL)
        await asyncio.wait_for(asked.wait(), slowed(ANSWER_S))
        await gateway.destroy_task(job.id, force=True)
        removed.set()
        async with asyncio.timeout(slowed(ANSWER_S)):
            (request,) = frames.Decoder().feed(await loop.sock_recv(theirs, 65536))
            assert request["op"] == protocol.END
            await loop.sock_sendall(theirs, frames.encode({"re": request["id"], "ok": True}))
            assert await loop.sock_recv(theirs, 1) == b""
    theirs.close()
