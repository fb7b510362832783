"""A plugin in other namespaces than containerd, as in the container of a Nomad agent."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.model.nomad import Health
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.plugin.driver import Driver, launched
from tests.support.waiting import until, wait_until
from tests.support.workers.launcher import launcher_pid, worker_pids
from tests.support.workers.peers import LauncherProcess, has_ended

pytestmark = pytest.mark.containerd

_MOUNTS = ["unshare", "--mount", "--propagation"]
# A plugin ends with the dev host that the variable names, and does not see the test's process.
_OWN_PROCESSES = [
    *("env", "--unset=CONTAINERD_DRIVER_HOST"),
    *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Yields a directory that is a shared mount."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    directory = tmp_path / "place"
    directory.mkdir()
    subprocess.run(["mount", "--bind", directory, directory], check=True)
    subprocess.run(["mount", "--make-shared", directory], check=True)
    yield directory
    subprocess.run(["umount", "--lazy", directory], check=True)


@pytest.fixture
def driver(containerd: ContainerdDaemon, place: Path) -> Iterator[Driver]:
    """Yields a driver whose plugin has a mount namespace of its own, with shared propagation."""
    made = Driver(containerd, place, prefix=[*_MOUNTS, "unchanged"])
    yield made
    try:
        made.wait_clean()
    finally:
        made.close()


async def test_a_task_outlives_the_container_of_its_agent(
    driver: Driver, busybox_image: str
) -> None:
    script = "echo one; until [ -e /local/go ]; do sleep 0.1; done; echo two; exit 5"
    async with launched(driver) as session:
        assert (await session.fingerprint()).health is Health.HEALTHY
        job = driver.task()
        handle = await driver.start(job, busybox_image, script)
        await until(lambda: b"one\n" in job.out, 10)
        # A runtime that ends a container ends all its processes.
        session.kill_plugin()
    pids = [pid for pid in (launcher_pid(driver.state_dir), *worker_pids(driver.state_dir)) if pid]
    assert len(pids) == 2
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: all(map(has_ended, pids)), 10, "launcher and worker end")
    async with launched(driver) as session:
        await session.recover(handle)
        (job.alloc.path / "t/local/go").touch()
        assert (await session.wait(job.id)).exit_code == 5
        await driver.end(job)
        assert job.out == b"one\ntwo\n"


async def test_a_launcher_of_the_machine_keeps_the_workers_when_the_agents_container_ends(
    driver: Driver, busybox_image: str
) -> None:
    driver.state_dir.mkdir(mode=0o700)
    script = "echo one; until [ -e /local/go ]; do sleep 0.1; done; echo two; exit 5"
    with LauncherProcess(state_dir=driver.state_dir) as launcher:
        async with launched(driver) as session:
            job = driver.task()
            handle = await driver.start(job, busybox_image, script)
            await until(lambda: b"one\n" in job.out, 10)
            session.kill_plugin()
        workers = worker_pids(driver.state_dir)
        assert workers == launcher.worker_pids()
        async with launched(driver) as session:
            await session.recover(handle)
            assert worker_pids(driver.state_dir) == workers
            (job.alloc.path / "t/local/go").touch()
            assert (await session.wait(job.id)).exit_code == 5
            await driver.end(job)
            assert job.out == b"one\ntwo\n"
        driver.wait_clean()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([*_MOUNTS, "slave"], "do not reach containerd: no task starts"),
        (_OWN_PROCESSES, "containerd's process is not visible"),
    ],
)
async def test_a_container_that_shares_too_little_is_unhealthy_by_name(
    containerd: ContainerdDaemon, place: Path, words: list[str], text: str
) -> None:
    made = Driver(containerd, place, prefix=words)
    try:
        async with launched(made) as session:
            look = await session.fingerprint()
            assert look.health is Health.UNHEALTHY
            assert text in look.description
            assert "docs/containers.md" in look.description
    finally:
        made.close()
