"""Everything around a running task is killed, alone and in pairs; the task must not notice."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugin.host.agent.session import Handle
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.kernel.traces import traces
from tests.support.plugin.driver import Driver, Job, launched
from tests.support.waiting import until
from tests.support.workers.launcher import launcher_pid, worker_pid
from tests.support.workers.log_process import LogProcess

pytestmark = pytest.mark.containerd

VICTIMS = ("plugin", "worker", "launcher", "containerd", "reader")
ROUNDS = [(one,) for one in VICTIMS] + list(itertools.combinations(VICTIMS, 2))
COUNTER = (
    "i=0; until test -e /local/stop; do i=$((i+1)); echo line $i; usleep 2000; done;"
    "echo $i > /local/last; exit 23"
)


class Readers:
    """Two processes that read a task's logs into files, and their successors."""

    def __init__(self, job: Job, directory: Path) -> None:
        self._job, self._directory = job, directory
        self._processes: list[LogProcess] = []

    @property
    def out(self) -> bytes:
        """The stdout of the task, as far as a reader has read."""
        return self._processes[0].data

    def begin(self) -> None:
        """Starts a reader for each stream."""
        self._processes = [
            LogProcess(
                self._job.alloc.fifo(self._job.config.name, stream), self._directory / stream
            )
            for stream in ("stdout", "stderr")
        ]

    def kill(self) -> None:
        """Kills both readers with SIGKILL."""
        for process in self._processes:
            process.kill()

    def finish(self) -> bytes:
        """Returns all of stdout, when both logs have ended."""
        out, _ = [process.finish() for process in self._processes]
        return out

    def close(self) -> None:
        """Ends the leftovers of a failed test."""
        for process in self._processes:
            process.end()


class Killer:
    """Killer of processes around a task, which also restarts as an operator or Nomad would."""

    def __init__(self, driver: Driver, job: Job, handle: Handle, readers: Readers) -> None:
        self._driver, self._job, self._handle = driver, job, handle
        self._readers = readers

    def kill(self, victim: str) -> None:
        """Kills one of VICTIMS without a warning."""
        directory = self._driver.state_dir / "tasks" / self._job.container
        if victim == "plugin":
            self._driver.session.kill_plugin()
        elif victim == "worker":
            _kill(worker_pid(directory))
        elif victim == "launcher":
            # The plugin starts a launcher at the next fork, so none may exist now.
            _kill(launcher_pid(self._driver.state_dir), may_be_gone=True)
        elif victim == "containerd":
            self._driver.containerd.down()
        else:
            self._readers.kill()

    async def bring_back(self, victims: tuple[str, ...]) -> None:
        """Restarts victims, except for worker and launcher, which come back by themselves."""
        if "containerd" in victims:
            await asyncio.to_thread(self._driver.containerd.start)
        if "reader" in victims:
            self._readers.begin()
        if "plugin" in victims:
            await self._driver.session.launch()
            await self._driver.session.recover(self._handle)


def _kill(pid: int | None, *, may_be_gone: bool = False) -> None:
    assert pid is not None or may_be_gone
    if pid is not None:
        os.kill(pid, signal.SIGKILL)


def _runs(pid: int | None) -> bool:
    """Tells whether a process exists and is no zombie, which only the new parent can reap."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _pid(driver: Driver, job: Job) -> str:
    assert isinstance(driver.containerd, ContainerdDaemon)
    rows = [line.split() for line in driver.daemon.ctr("tasks", "list").splitlines()[1:]]
    assert [row[0] for row in rows] == [job.container], "there is another copy"
    assert rows[0][2] == "RUNNING"
    return rows[0][1]


async def _serves(driver: Driver, job: Job, readers: Readers) -> None:
    """Stats and exec work, and the log goes on."""
    async with asyncio.timeout(20), contextlib.aclosing(driver.session.stats(job.id, 0.1)) as stats:
        # A new worker has no figures before the watch begins.
        while not (await anext(stats)).memory.usage:
            pass
    assert (await driver.session.exec(job.id, ["echo", "here"])).stdout == b"here\n"
    await _more(readers, 1)


async def _more(readers: Readers, size: int) -> None:
    wanted = len(readers.out) + size
    await until(lambda: len(readers.out) >= wanted, 20, "the log stands still")


@pytest.fixture
def job(driver: Driver) -> Job:
    """Prepares a task without a start."""
    return driver.task()


@pytest.fixture
def readers(job: Job, tmp_path: Path) -> Iterator[Readers]:
    """Yields readers of the task's logs."""
    made = Readers(job, tmp_path)
    made.begin()
    yield made
    made.close()


@pytest.mark.parametrize("victims", ROUNDS, ids="+".join)
async def test_a_task_does_not_notice_what_is_killed_around_it(
    driver: Driver, busybox_image: str, job: Job, readers: Readers, victims: tuple[str, ...]
) -> None:
    seed = random.SystemRandom().getrandbits(32)
    logging.getLogger(__name__).warning("seed %d", seed)  # pytest shows the seed of a failure
    chance = random.Random(seed)
    async with launched(driver) as session:
        config = {"image": busybox_image, "command": "/bin/sh", "args": ["-c", COUNTER]}
        handle = await session.start(job.config, config)
        killer = Killer(driver, job, handle, readers)
        directory = driver.state_dir / "tasks" / job.container
        await until(lambda: readers.out, 10)
        pid = _pid(driver, job)
        for _ in range(2):
            await _more(readers, chance.randrange(2000))
            for victim in chance.sample(victims, len(victims)):
                killer.kill(victim)
            await killer.bring_back(victims)
            await until(lambda: worker_pid(directory), 15, "no worker came back")
            await _serves(driver, job, readers)
            assert _pid(driver, job) == pid
        worker = worker_pid(directory)
        local = Path(job.alloc.path, "t", "local")
        (local / "stop").touch()
        assert (await session.wait(job.id)).exit_code == 23
        await session.destroy(job.id)
        written = await asyncio.to_thread(readers.finish)
        last = int((local / "last").read_text())
        assert written.decode().splitlines() == [f"line {i}" for i in range(1, last + 1)]
        # The launcher may be dead, so no process counts the worker among a launcher's children.
        await until(lambda: not _runs(worker), 10, "the worker is left")
        await until(lambda: not traces([job.container]), 10, lambda: str(traces([job.container])))
        assert await driver.output(busybox_image, "echo next") == "next\n"
