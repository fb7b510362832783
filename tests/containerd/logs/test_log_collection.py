"""Tests of logs without Nomad's logmon: deaths around a task, the end, switches of the option."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugin.host.agent.session import Handle
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.kernel.scarce import SmallDisk
from tests.support.plugin.agent_session import AgentSession
from tests.support.plugin.driver import Driver, Job, launched
from tests.support.plugin.plugin_dir import ROOT
from tests.support.plugin.victims import LAUNCHER, SINGLES_AND_PAIRS, Victims
from tests.support.waiting import until
from tests.support.workers.launcher import launcher_pid, worker_pid

pytestmark = pytest.mark.containerd

COLLECTS = {
    "log_collection": "driver",
    "log_files": {"max_files": 10_000, "max_file_size": "64K"},
}
# Lines of 1000 bytes: a file has 64 lines.
COUNTER = (
    "x=$(printf %0990d 0); i=0; until test -e /local/stop; do i=$((i+1)); printf '%s %8d\\n' $x $i;"
    " usleep 500; done; echo $i > /local/last; exit 23"
)


@pytest.fixture
def driver(containerd: ContainerdDaemon, tmp_path: Path) -> Iterator[Driver]:
    """Yields a driver that collects logs; checks that no task leaves an object."""
    made = Driver(containerd, tmp_path, COLLECTS)
    try:
        yield made
        made.wait_clean()
    finally:
        made.close()


class Collected:
    """A task whose log the driver collects: without FIFOs, as on a Nomad client."""

    def __init__(self, driver: Driver, image: str) -> None:
        self.job: Job = driver.task()
        self.local = Path(self.job.alloc.path, "t", "local")
        self.logs = Path(self.job.alloc.path, "alloc", "logs")
        self.state = driver.state_dir / "tasks" / self.job.container
        self._image = image
        for fifo in self.logs.iterdir():
            fifo.unlink()

    async def start(self, session: AgentSession, script: str, **options: object) -> Handle:
        """Starts the task."""
        config = {"image": self._image, "command": "/bin/sh", "args": ["-c", script], **options}
        return await session.start(self.job.config, config)

    def data(self, stream: str = "stdout") -> bytes:
        """Returns the content of all log files of a stream."""
        files = sorted(
            self.logs.glob(f"t.{stream}.*"), key=lambda path: int(path.suffix.lstrip("."))
        )
        return b"".join(file.read_bytes() for file in files)

    async def more(self, size: int) -> None:
        """Waits until the log has grown."""
        wanted = len(self.data()) + size
        await until(lambda: len(self.data()) >= wanted, 20, "the log stands still")

    def numbers(self) -> list[int]:
        """Returns the number of each line."""
        return [int(line.split()[1]) for line in self.data().splitlines()]

    def last(self) -> int:
        """Returns the number of the task's last line."""
        return int((self.local / "last").read_text())


@pytest.mark.parametrize("victims", SINGLES_AND_PAIRS, ids="+".join)
async def test_no_death_around_a_task_loses_doubles_or_splits_a_line(
    driver: Driver, busybox_image: str, victims: tuple[str, ...]
) -> None:
    task = Collected(driver, busybox_image)
    async with launched(driver) as session:
        handle = await task.start(session, COUNTER)
        for _ in range(3):
            await task.more(50_000)
            around = Victims(driver, task.job)
            # The plugin starts a launcher before the next fork, so none may run now.
            has_launcher = launcher_pid(driver.state_dir) is not None
            around.kill(*(victim for victim in victims if victim != LAUNCHER or has_launcher))
            await around.bring_back(*victims, handle=handle)
            await until(lambda: worker_pid(task.state), 15, "no worker came back")
            await task.more(1)
        (task.local / "stop").touch()
        assert (await session.wait(task.job.id)).exit_code == 23
        await session.destroy(task.job.id)
        assert task.numbers() == list(range(1, task.last() + 1))
        files = list(task.logs.glob("t.stdout.*"))
        assert len(files) > 2
        assert all(file.read_bytes().endswith(b"\n") for file in files)


async def test_a_task_without_output_has_its_files_and_no_fifo_of_nomads_is_needed(
    driver: Driver, busybox_image: str
) -> None:
    task = Collected(driver, busybox_image)
    async with launched(driver) as session:
        await task.start(session, "echo to stderr >&2; exit 3")
        assert (await session.wait(task.job.id)).exit_code == 3
        await session.destroy(task.job.id)
        names = sorted(path.name for path in task.logs.iterdir())
        assert names == ["t.stderr.0", "t.stdout.0"]
        assert task.data("stderr") == b"to stderr\n"


@pytest.mark.parametrize("victim", ["worker", "plugin"])
async def test_the_end_of_a_task_while_the_worker_or_the_plugin_is_dead_is_complete(
    driver: Driver, busybox_image: str, victim: str
) -> None:
    task = Collected(driver, busybox_image)
    async with launched(driver) as session:
        handle = await task.start(session, f"until test -e /local/go; do usleep 9000; done;{BURST}")
        around = Victims(driver, task.job)
        around.kill(victim)
        (task.local / "go").touch()
        await until((task.local / "last").exists, 20)
        await around.bring_back(victim, handle=handle)
        assert (await session.wait(task.job.id)).exit_code == 5
        await session.destroy(task.job.id)
        assert task.data() == TEXT


BURST = "seq 1 9000; touch /local/last; exit 5"  # 43 893 bytes: less than a FIFO holds
TEXT = b"".join(b"%d\n" % number for number in range(1, 9001))


async def test_a_worker_that_dies_between_exit_record_and_last_line_is_replaced(
    driver: Driver, busybox_image: str
) -> None:
    task = Collected(driver, busybox_image)
    disk = SmallDisk(task.logs)
    async with launched(driver) as session:
        await task.start(session, f"until test -e /local/go; do usleep 9000; done;{BURST}")
        around = Victims(driver, task.job)
        disk.fill()  # so the last lines stay in the FIFO
        (task.local / "go").touch()
        assert (await session.wait(task.job.id)).exit_code == 5
        around.kill("worker")
        await until(lambda: worker_pid(task.state) not in {None, around.worker}, 15, "no worker")
        assert task.data() == b""
        disk.free()
        await until(lambda: task.data() == TEXT, 20, "the end of the log is lost")
        await session.destroy(task.job.id)
    disk.close()


async def test_tasks_keep_the_way_of_their_start_when_the_option_changes(
    containerd: ContainerdDaemon, driver: Driver, busybox_image: str, tmp_path: Path
) -> None:
    other = Driver(containerd, tmp_path)  # the same plugin with log_collection = "nomad"
    script = (
        "i=0; until test -e /local/stop; do i=$((i+1)); echo line $i; usleep 9000; done;"
        "echo $i > /local/last"
    )
    config = {"image": busybox_image, "command": "/bin/sh", "args": ["-c", script]}
    collected, plain = Collected(driver, busybox_image), driver.task()
    plain.read_logs()
    async with launched(other) as session:
        plain_handle = await session.start(plain.config, config)
    async with launched(driver) as session:
        await session.recover(plain_handle)
        handle = await collected.start(session, script)
        await _replaced(driver, plain)
        await until(collected.data, 10)
    async with launched(other) as session:
        await session.recover(plain_handle)
        await session.recover(handle)
        await _replaced(driver, collected.job)
        await collected.more(100)
        for job in (plain, collected.job):
            local = Path(job.alloc.path, "t", "local")
            (local / "stop").touch()
            assert (await session.wait(job.id)).exit_code == 0
            await session.destroy(job.id)
        await plain.logs_end()
        for job, log in ((plain, bytes(plain.out)), (collected.job, collected.data())):
            last = int(Path(job.alloc.path, "t", "local", "last").read_text())
            assert log.decode().splitlines() == [f"line {i}" for i in range(1, last + 1)]
        assert not list(Path(plain.alloc.path, "alloc", "logs").glob("t.stdout.*"))
        assert await other.output(busybox_image, "echo next") == "next\n"


async def _replaced(driver: Driver, job: Job) -> None:
    """Kills the worker of a task, and waits for the next worker."""
    directory = driver.state_dir / "tasks" / job.container
    pid = worker_pid(directory)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await until(lambda: worker_pid(directory) not in {None, pid}, 15, "no new worker")


def test_a_run_shows_the_whole_log_of_a_task_whose_log_the_driver_collects(
    driver: Driver, busybox_image: str, tmp_path: Path
) -> None:
    config = {
        "image": busybox_image,
        "command": "/bin/sh",
        "args": ["-c", "echo problem >&2; seq 1 50000; printf end; exit 7"],
    }
    groups = [
        {"Name": "g", "Tasks": [{"Name": "t", "Driver": "containerd-driver", "Config": config}]}
    ]
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"ID": "j", "TaskGroups": groups}))
    block = tmp_path / "agent.hcl"
    block.write_text(
        'plugin "containerd-driver" { config {\n'
        f'containerd_address = "{driver.containerd.address}"\n'
        f'containerd_namespace = "{driver.containerd.namespace}"\n'
        f'state_dir = "{driver.state_dir}"\n'
        'log_collection = "driver"\n'
        'log_files { max_file_size = "64K" }\n'
        "} }\n"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-I", str(ROOT / "plugin/main.py"), "run", str(job)),
            *("--alloc-dir", str(driver.alloc_root)),
            *("--config-file", str(block)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert done.stdout == "".join(f"{number}\n" for number in range(1, 50001)) + "end"
    assert "problem\n" in done.stderr


async def test_a_task_chooses_no_log_or_limits_of_its_own(
    driver: Driver, busybox_image: str
) -> None:
    silent, small = Collected(driver, busybox_image), Collected(driver, busybox_image)
    script = "seq 1 50000; touch /local/last"
    async with launched(driver) as session:
        await silent.start(session, script, logging={"type": "none"})
        limits = [{"max-file": "2", "max-size": "64k"}]
        await small.start(session, script, logging={"type": "json-file", "config": limits})
        for task in (silent, small):
            assert (await session.wait(task.job.id)).exit_code == 0
            assert (task.local / "last").exists()
            await session.destroy(task.job.id)
    assert list(silent.logs.iterdir()) == []
    assert len(list(small.logs.glob("t.stdout.*"))) == 2
    assert "".join(f"{number}\n" for number in range(1, 50001)).endswith(small.data().decode())
