"""containerd comes back with an empty root while tasks run: they go on, and end without a trace."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.model.nomad import TaskState
from proto.errors import DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.plugin.driver import Driver, launched
from tests.support.waiting import until

pytestmark = pytest.mark.containerd


@pytest.fixture
def forgetful(tmp_path: Path) -> Iterator[Driver]:
    """Yields a driver on a containerd for the test alone."""
    with ContainerdDaemon() as daemon:
        made = Driver(daemon, tmp_path)
        yield made
        try:
            made.wait_clean()
        finally:
            made.close()


async def test_tasks_outlive_the_metadata_of_containerd_and_leave_nothing(
    forgetful: Driver, busybox_image: str
) -> None:
    driver, daemon = forgetful, forgetful.containerd
    assert isinstance(daemon, ContainerdDaemon)
    async with launched(driver) as session:
        stopped, forced = driver.task("stopped"), driver.task("forced")
        script = "trap 'exit 7' TERM; echo on; while :; do sleep 0.1; done"
        for job in (stopped, forced):
            await driver.start(job, busybox_image, script)
        await until(lambda: stopped.out and forced.out, 10, "no output")
        assert len(daemon.shim_pids()) == 2
        daemon.kill()
        (daemon.base / "root").rename(daemon.base / "lost")
        daemon.start()
        await driver.healthy()

        assert (await session.inspect(stopped.id)).state is TaskState.RUNNING
        with pytest.raises(DriverError, match=r"container .* does not exist"):
            await session.exec(stopped.id, ["/bin/true"])
        await session.stop(stopped.id)
        assert (await session.wait(stopped.id)).exit_code == 7
        waiting = asyncio.create_task(session.wait(forced.id))
        for job in (stopped, forced):
            await driver.end(job)
            assert bytes(job.out) == b"on\n"
        assert (await waiting).signal == signal.SIGKILL
        await until(lambda: not daemon.shim_pids(), 10, "shims are left")
        assert await driver.output(busybox_image, "echo again") == "again\n"
