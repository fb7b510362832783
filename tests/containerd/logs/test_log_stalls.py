"""Tests of a log reader that dies under a real task, with other deaths: the events and the log."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from proto.errors import DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.plugin.agent_session import AgentSession
from tests.support.plugin.driver import Driver, Job, launched
from tests.support.waiting import until
from tests.support.workers.launcher import worker_pid
from tests.support.workers.log_process import LogProcess

pytestmark = pytest.mark.containerd

FIRST, LAST = 1000, 150_000
TEXT = b"".join(b"%d\n" % number for number in range(1, LAST + 1))  # 0.9 MB
READ = TEXT.index(b"\n1000\n") + 6
SCRIPT = (
    f"seq 1 {FIRST}; until test -e /local/go; do usleep 20000; done;"
    f"seq {FIRST + 1} {LAST}; touch /local/done; until test -e /local/stop; do usleep 20000; done"
)


class Stalled:
    """A task of a plugin, whose reader was killed after the first lines."""

    def __init__(self, driver: Driver, directory: Path) -> None:
        self.driver = driver
        self.job: Job = driver.task()
        self.told: list[str] = []
        self._file = directory / "log"
        self._readers = [self.reader(), LogProcess(self._fifo("stderr"), directory / "err")]
        self._listening: asyncio.Task[None] | None = None

    def _fifo(self, stream: str) -> Path:
        return self.job.alloc.fifo(self.job.config.name, stream)

    @property
    def local(self) -> Path:
        """Directory of the task's /local."""
        return Path(self.job.alloc.path, "t", "local")

    def reader(self) -> LogProcess:
        """Starts another reader of stdout."""
        return LogProcess(self._fifo("stdout"), self._file)

    def listen(self, session: AgentSession) -> None:
        """Collects the events of the current plugin."""

        async def collect() -> None:
            with suppress(DriverError):  # a test may kill the plugin
                async for event in session.events():
                    self.told.append(event.message)

        self._listening = asyncio.create_task(collect())

    async def hears(self, words: str) -> str:
        """Waits for the first event with the words."""

        def found() -> list[str]:
            return [message for message in self.told if words in message]

        return (await until(found, 40, lambda: f"{words!r} is not in {self.told}"))[0]

    @asynccontextmanager
    async def life(self, image: str) -> AsyncIterator[AgentSession]:
        """Yields a session with a running task that has lost the reader."""
        async with launched(self.driver) as session:
            self.listen(session)
            config = {"image": image, "command": "/bin/sh", "args": ["-c", SCRIPT]}
            self.handle = await session.start(self.job.config, config)
            reader = self._readers[0]
            await until(lambda: len(reader.data) == READ, 10)
            await asyncio.to_thread(reader.kill)
            yield session

    async def end(self, session: AgentSession) -> None:
        """Lets the task end by itself, and destroys the task."""
        (self.local / "stop").touch()
        assert (await session.wait(self.job.id)).exit_code == 0
        await session.destroy(self.job.id)

    async def written(self) -> None:
        """Waits until the task has written all."""
        await until((self.local / "done").exists, 40, "the task waits for its reader")

    def close(self) -> None:
        """Ends readers left by a failed test."""
        if self._listening is not None:
            self._listening.cancel()
        for reader in self._readers:
            reader.end()


@pytest.fixture(params=["drop_oldest", "block"])
def stalled(
    request: pytest.FixtureRequest, containerd: ContainerdDaemon, tmp_path: Path
) -> Iterator[Stalled]:
    """Yields a task on a driver with little room for logs."""
    room = {"size": "128K", "when_full": request.param}
    driver = Driver(containerd, tmp_path, {"log_buffer": room})
    made = Stalled(driver, tmp_path)
    yield made
    made.close()
    try:
        driver.wait_clean()
    finally:
        driver.close()


@pytest.mark.parametrize("stalled", ["drop_oldest"], indirect=True)
async def test_a_task_without_a_reader_runs_on_whoever_dies_and_the_user_hears_what_was_dropped(
    stalled: Stalled, busybox_image: str
) -> None:
    driver = stalled.driver
    async with stalled.life(busybox_image) as session:
        directory = driver.state_dir / "tasks" / stalled.job.container
        worker = worker_pid(directory)
        assert worker
        os.kill(worker, signal.SIGKILL)
        await until(lambda: worker_pid(directory) not in {None, worker}, 15)
        (stalled.local / "go").touch()
        await stalled.hears("Nobody reads stdout, and 128 KiB are full: its oldest lines")
        session.kill_plugin()
        driver.containerd.down()
        await stalled.written()
        await asyncio.to_thread(driver.containerd.start)
        await session.launch()
        stalled.told.clear()
        await session.recover(stalled.handle)
        stalled.listen(session)
        await stalled.hears("its oldest lines are dropped")
        reader = stalled.reader()
        news = await stalled.hears("stdout is read again; ")
        dropped = int(news.split(";")[1].split()[0])
        await until(lambda: reader.data.endswith(b"\n%d\n" % LAST), 10)
        assert reader.data == TEXT[:READ] + TEXT[READ + dropped :]
        await stalled.end(session)
    assert await asyncio.to_thread(reader.finish) == reader.data


@pytest.mark.parametrize("stalled", ["block"], indirect=True)
async def test_a_task_may_rather_wait_and_no_byte_is_lost(
    stalled: Stalled, busybox_image: str
) -> None:
    async with stalled.life(busybox_image) as session:
        (stalled.local / "go").touch()
        await stalled.hears("the task waits in its next write (log_buffer.when_full)")
        assert not (stalled.local / "done").exists()
        reader = stalled.reader()
        await stalled.written()
        await stalled.hears("stdout is read again; no bytes were lost")
        await until(lambda: reader.data == TEXT, 10)
        await stalled.end(session)
    assert await asyncio.to_thread(reader.finish) == TEXT


@pytest.mark.parametrize("stalled", ["block"], indirect=True)
async def test_a_task_that_waits_for_its_reader_can_be_stopped_and_destroyed(
    stalled: Stalled, busybox_image: str
) -> None:
    async with stalled.life(busybox_image) as session:
        (stalled.local / "go").touch()
        await stalled.hears("the task waits")
        await session.stop(stalled.job.id, timeout_s=0.1)
        assert (await session.wait(stalled.job.id)).signal == signal.SIGKILL
        await session.destroy(stalled.job.id)
        assert stalled.driver.leftovers() == []
