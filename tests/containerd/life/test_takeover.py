"""Tests of the takeover of running tasks of the Go driver, on a real containerd."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

from actors.model.nomad import TaskState
from plugin.host.agent.session import Handle
from proto import frames
from proto.errors import Code, DriverError
from proto.nomad import driver_pb2
from proto.release import RELEASE
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.plugin.driver import Driver, Job, launched
from tests.support.plugin.go_task import GoTask, go_image
from tests.support.waiting import until
from tests.support.workers.launcher import worker_pid
from workers import protocol
from workers.logs import pipe

pytestmark = pytest.mark.containerd
VICTIMS = ("plugin", "worker", "containerd")
PAIRS = [pair for pair in itertools.combinations(VICTIMS, 2) if pair != ("plugin", "worker")]
COUNTER = (
    "trap 'stop=1' USR1; i=0; while test -z \"$stop\"; do i=$((i+1)); echo line $i;"
    "usleep 2000; done; echo last $i; exit 23"
)
MakeTask = Callable[..., GoTask]


@pytest.fixture(scope="module")
def chain_ids(
    containerd: ContainerdDaemon, tmp_path_factory: pytest.TempPathFactory
) -> dict[bool, str]:
    """Unpacks an image in both namespaces of the Go driver."""
    place = tmp_path_factory.mktemp("image")
    return {scope: go_image(containerd, place, scope=scope) for scope in (False, True)}


@pytest.fixture
def make(
    containerd: ContainerdDaemon, driver: Driver, chain_ids: dict[bool, str]
) -> Iterator[MakeTask]:
    """Makes tasks of the Go driver, of which nothing may be left."""
    made: list[GoTask] = []

    def make_task(script: str = COUNTER, *, scope: bool = False) -> GoTask:
        job = driver.task("web")
        made.append(GoTask(containerd, chain_ids[scope], job, script, scope=scope))
        return made[-1]

    yield make_task
    try:
        assert [left for task in made for left in task.leftovers()] == []
    finally:
        for task in made:
            task.remove()


def lines(job: Job) -> list[str]:
    return job.out.decode().splitlines()


def assert_complete(job: Job) -> None:
    """Checks that every line appears once, in order, from the first to the last."""
    *counted, last = lines(job)
    assert counted == [f"line {number}" for number in range(1, len(counted) + 1)]
    assert last == f"last {len(counted)}"


async def take_over(driver: Driver, task: GoTask) -> None:
    """Acts like a returning agent: first RecoverTask, then the log collector."""
    await driver.session.recover(task.handle)
    task.job.read_logs()


async def more(job: Job, size: int = 1) -> None:
    wanted = len(job.out) + size
    await until(lambda: len(job.out) >= wanted, 20, "the log stands still")


async def finish(driver: Driver, task: GoTask, code: int = 23) -> None:
    await driver.session.signal(task.job.id, "SIGUSR1")
    assert (await driver.session.wait(task.job.id)).exit_code == code
    await driver.end(task.job)
    assert task.leftovers() == []


def worker_of(driver: Driver, task: GoTask) -> int | None:
    return worker_pid(driver.state_dir / "tasks" / task.container)


def is_full(fifo: Path) -> bool:
    descriptor = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return pipe.unread(descriptor) > 0 and pipe.is_full(descriptor)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("scope", [False, True], ids=["0.9.3", "0.9.4 on cgroup v2"])
async def test_a_task_of_the_go_driver_goes_on_and_everything_works_on_it(
    driver: Driver, make: MakeTask, scope: bool
) -> None:
    async with launched(driver) as session:
        task = make(scope=scope)
        job = task.job
        await asyncio.to_thread(task.start)
        await take_over(driver, task)
        await more(job)
        status = await session.inspect(job.id)
        assert status.state is TaskState.RUNNING
        assert status.started_at_ns == 1_700_000_000_000_000_000
        assert status.driver_attributes == {"containerName": task.container}
        stats = session.stats(job.id, 0.1)
        assert (await anext(stats)).memory.usage
        await stats.aclose()
        assert (await session.exec(job.id, ["echo", "here"])).stdout == b"here\n"
        with pytest.raises(DriverError, match="cannot destroy running task"):
            await session.destroy(job.id, force=False)
        assert Path(f"/proc/{task.pid}").exists()
        await finish(driver, task)
        assert_complete(job)


async def test_a_stop_sends_sigterm_and_the_next_start_is_one_of_this_driver(
    driver: Driver, make: MakeTask, busybox_image: str
) -> None:
    async with launched(driver) as session:
        task = make("trap 'echo bye; exit 4' TERM; echo ready; while :; do usleep 10000; done")
        await asyncio.to_thread(task.start)
        await take_over(driver, task)
        await until(lambda: lines(task.job) == ["ready"], 10)
        await session.stop(task.job.id, timeout_s=60)
        assert (await session.wait(task.job.id)).exit_code == 4
        await driver.end(task.job)
        assert lines(task.job) == ["ready", "bye"]
        task.job.readers.clear()
        task.job.out.clear()
        assert await driver.output(busybox_image, "echo anew", task.job) == "anew\n"


@pytest.mark.parametrize("victims", [*((one,) for one in VICTIMS), *PAIRS], ids="+".join)
async def test_no_line_is_lost_or_told_twice_when_what_is_around_the_task_is_killed(
    driver: Driver, make: MakeTask, victims: tuple[str, ...]
) -> None:
    async with launched(driver) as session:
        task = make()
        await asyncio.to_thread(task.start)
        await take_over(driver, task)
        for _ in range(3):
            await more(task.job, 500)
            await until(lambda: worker_of(driver, task), 10, "no worker came back")
            for victim in victims:
                if victim == "plugin":
                    session.kill_plugin()
                elif victim == "worker":
                    os.kill(worker_of(driver, task) or 0, signal.SIGKILL)
                else:
                    driver.containerd.down()
            if "containerd" in victims:
                await asyncio.to_thread(driver.containerd.start)
            if "plugin" in victims:
                await session.launch()
                await session.recover(task.handle)
        await more(task.job, 500)
        await finish(driver, task)
        assert_complete(task.job)


async def test_with_plugin_and_worker_gone_the_log_waits_for_the_next_reader(
    driver: Driver, make: MakeTask
) -> None:
    """Opens the FIFO again, like the log collector of a restarted agent."""
    async with launched(driver) as session:
        task = make()
        await asyncio.to_thread(task.start)
        await take_over(driver, task)
        await more(task.job, 500)
        session.kill_plugin()
        os.kill(worker_of(driver, task) or 0, signal.SIGKILL)
        await task.job.logs_end()
        task.job.readers.clear()
        await session.launch()
        await take_over(driver, task)
        await more(task.job, 500)
        await finish(driver, task)
        assert_complete(task.job)


async def test_a_task_that_stands_still_because_nobody_read_its_log_goes_on(
    driver: Driver, make: MakeTask
) -> None:
    script = (
        "i=0; while test $i -lt 30000; do i=$((i+1)); echo line $i; echo line $i >&2; done;"
        "echo last $i; exit 23"
    )
    async with launched(driver) as session:
        task = make(script)
        await asyncio.to_thread(task.start)
        await until(lambda: is_full(task.stdout), 20, "the task does not fill the FIFO")
        await take_over(driver, task)
        assert (await session.wait(task.job.id)).exit_code == 23
        await driver.end(task.job)
        assert_complete(task.job)
        assert len(task.job.err.splitlines()) == 30000


async def test_what_a_task_writes_while_nomad_does_not_read_is_kept(
    driver: Driver, make: MakeTask
) -> None:
    script = "i=0; while test $i -lt 9000; do i=$((i+1)); echo line $i; done; echo last $i; exit 23"
    async with launched(driver) as session:
        task = make(script)
        await asyncio.to_thread(task.start)
        await session.recover(task.handle)
        assert (await session.wait(task.job.id)).exit_code == 23
        task.job.read_logs()
        await task.job.logs_end(20)  # before the destroy, which drops unread content
        await session.destroy(task.job.id)
        assert_complete(task.job)


async def test_a_task_that_ended_meanwhile_has_its_exit_code(
    driver: Driver, make: MakeTask
) -> None:
    async with launched(driver) as session:
        task = make("exit 23")
        await asyncio.to_thread(task.start)
        await until(lambda: "STOPPED" in task.daemon.ctr("tasks", "list"), 10)
        await session.recover(task.handle)
        assert (await session.wait(task.job.id)).exit_code == 23
        await session.destroy(task.job.id)
        assert task.leftovers() == []


async def test_a_task_that_its_plugin_had_not_yet_started_is_started(
    driver: Driver, make: MakeTask
) -> None:
    async with launched(driver):
        task = make()
        await asyncio.to_thread(task.create)
        await take_over(driver, task)
        await more(task.job)
        await finish(driver, task)
        assert_complete(task.job)


async def test_a_task_of_before_a_reboot_is_cleaned_up_and_not_found(
    driver: Driver, make: MakeTask
) -> None:
    """Covers a reboot, over which containerd keeps containers and snapshots, and no tasks."""
    async with launched(driver) as session:
        task = make()
        await asyncio.to_thread(task.start)
        task.daemon.ctr("tasks", "delete", "--force", task.container)
        with pytest.raises(DriverError, match="task not found for given id"):
            await session.recover(task.handle)
        assert task.leftovers() == []


@pytest.mark.parametrize("scope", [False, True], ids=["0.9.3", "0.9.4 on cgroup v2"])
async def test_what_could_not_be_taken_over_is_removed_by_the_destroy_that_follows(
    driver: Driver, make: MakeTask, scope: bool
) -> None:
    if scope and not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        pytest.skip("on cgroup v1 that release has the names of 0.9.3")
    async with launched(driver) as session:
        task = make(scope=scope)
        await asyncio.to_thread(task.start)
        message = driver_pb2.TaskHandle.FromString(task.handle.encoded)
        message.driver_state = message.driver_state[:-1]
        with pytest.raises(DriverError, match="failed to decode task state from handle"):
            await session.recover(Handle(task_id=task.job.id, encoded=message.SerializeToString()))
        assert Path(f"/proc/{task.pid}").exists()
        task.name_file.unlink()  # Nomad removes the file with the allocation
        await session.destroy(task.job.id)
        assert task.leftovers() == []


async def test_a_log_that_cannot_be_carried_on_is_a_recovery_that_fails(
    driver: Driver, make: MakeTask
) -> None:
    async with launched(driver) as session:
        task = make()
        await asyncio.to_thread(task.start)
        task.stdout.unlink()
        task.stdout.symlink_to("/dev/zero")
        with pytest.raises(DriverError, match="cannot read the FIFO") as caught:
            await session.recover(task.handle)
        assert caught.value.code is not Code.NOT_FOUND
        task.stdout.unlink()
        task.name_file.unlink()
        await session.destroy(task.job.id)


async def test_what_lies_where_the_go_driver_had_files_is_not_followed(
    driver: Driver, make: MakeTask, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "etc_hosts").write_text("kept")
    async with launched(driver) as session:
        task = make()
        await asyncio.to_thread(task.start)
        await take_over(driver, task)
        local = task.name_file.parent
        local.rename(local.with_name("moved"))
        local.symlink_to(precious)
        await session.destroy(task.job.id)
        await task.job.logs_end()
        assert (precious / "etc_hosts").read_text() == "kept"
        local.unlink()


class OldLauncher:
    """A listener like a launcher whose workers do not relay logs; retires on request."""

    def __init__(self, state_dir: Path, release: str) -> None:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = state_dir / protocol.LAUNCHER_SOCKET
        self._release = release
        self.asked: list[object] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, self._path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        if protocol.RETIRE not in self.asked:  # the name is another's by now
            self._path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = frames.Decoder()
        while data := await reader.read(65536):
            for frame in decoder.feed(data):
                self.asked.append(frame["op"])
                if frame["op"] == protocol.RETIRE:
                    self._path.unlink()
                event = protocol.READY if frame["op"] == protocol.FORK else ""
                answer = {"re": frame.get("id"), "ok": True, "event": event}
                writer.write(frames.encode({**answer, "release": self._release, "logs": {}}))
        writer.close()


async def test_a_launcher_of_an_older_release_retires_before_its_workers_lose_a_log(
    driver: Driver, make: MakeTask
) -> None:
    async with OldLauncher(driver.state_dir, "0.9.0") as old, launched(driver):
        task = make()
        await asyncio.to_thread(task.start)
        await take_over(driver, task)
        await more(task.job)
        await finish(driver, task)
        assert_complete(task.job)
        assert protocol.FORK not in old.asked


async def test_a_worker_that_would_not_carry_the_logs_on_is_not_taken(
    driver: Driver, make: MakeTask
) -> None:
    async with OldLauncher(driver.state_dir, RELEASE) as old, launched(driver) as session:
        task = make()
        await asyncio.to_thread(task.start)
        with pytest.raises(DriverError, match="the launcher of task workers is too old"):
            await session.recover(task.handle)
        assert old.asked[-2:] == [protocol.FORK, protocol.END]
        assert Path(f"/proc/{task.pid}").exists()
        task.name_file.unlink()
        await session.destroy(task.job.id)
