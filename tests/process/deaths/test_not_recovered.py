"""Tests of a task that could not be recovered: Nomad destroys the task, then starts a new task."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.actor_gateway import ActorGateway
from actors.asyncio_bridge import Reply, tell
from actors.files.state_dir import task_directory
from actors.loop_actor import LoopActor
from actors.model.settings import TaskOptions
from actors.task.actor import TaskActor
from actors.task.messages import Destroy, Recover
from actors.task.phases import Phase
from proto.errors import DriverError
from tests.support.fakes.containerd import FakeContainerd
from tests.support.needs import need_root_here
from tests.support.plugin.driver import Driver
from tests.support.plugin.gateways import settings, shut_down
from tests.support.workers.peers import LauncherProcess

IMAGE = "127.0.0.1:9/left:1"


class _Slow(LoopActor):
    """A supervisor that has not yet received the end of the task's actor."""

    def on_receive(self, message: object) -> None:
        """Does nothing."""


async def test_a_destroy_before_the_actor_of_a_failed_recovery_has_gone_removes_the_task(
    tmp_path: Path,
) -> None:
    need_root_here()
    with FakeContainerd() as containerd, LauncherProcess() as launcher:
        containerd.add_image(IMAGE)
        driver = Driver(containerd, tmp_path)
        job = driver.task()
        job.read_logs()
        gateway = ActorGateway()
        await gateway.configure(settings(containerd, launcher.state_dir))
        options = TaskOptions(
            image=IMAGE, image_pull_policy="never", command="/bin/sleep", args=("600",)
        )
        started = await gateway.start_task(job.config, options)
        supervisor = _Slow.start()
        actor = TaskActor.start(gateway._ready(), job.config, supervisor, Phase.RECOVERING)
        recovered: Reply[None] = Reply()
        tell(
            actor,
            Recover(version=started.handle_version, driver_state=b"no handle", reply=recovered),
        )
        with pytest.raises(DriverError, match="failed to decode task state"):
            await recovered.future
        destroyed: Reply[None] = Reply()
        tell(actor, Destroy(force=True, reply=destroyed))
        await destroyed.future
        await job.logs_end()
        assert containerd.leftovers() == []
        directory = task_directory(launcher.state_dir, job.container)
        assert not directory.exists()
        actor.stop(block=False)
        supervisor.stop(block=False)
        await shut_down(gateway)
