"""Tasks under other runtimes than runc, for real where they are installed."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.health import runtime_programs
from containerd.syscalls import MS_NODEV, mount, unmount
from proto.errors import DriverError
from tests.support.daemons import runtimes
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.needs import need_containerd, need_program
from tests.support.plugin.driver import Driver, launched
from tests.support.waiting import until

pytestmark = pytest.mark.containerd


@pytest.fixture
def runtimes_dir(tmp_path: Path) -> Path:
    """Makes a directory in which containerd searches first."""
    directory = tmp_path / "runtimes"
    directory.mkdir()
    runtimes.wrap(directory)
    return directory


@pytest.fixture
def other_driver(runtimes_dir: Path, tmp_path: Path) -> Iterator[Driver]:
    """Yields a driver on a containerd that finds the runtimes of the test."""
    need_containerd()
    with ContainerdDaemon(path=str(runtimes_dir)) as daemon:
        made = Driver(daemon, tmp_path)
        try:
            yield made
            made.wait_clean()
        finally:
            made.close()


@pytest.mark.parametrize(
    "name", ["crun", "runsc", "io.containerd.runc.v1", "io.containerd.runc.v2"]
)
async def test_a_life_under_another_runtime(
    other_driver: Driver, busybox_image: str, name: str
) -> None:
    if not name.startswith("io."):
        need_program(name)
    driver = other_driver
    async with launched(driver) as session:
        job = driver.task(env={"GREETING": "hello"})
        script = (
            'trap "exit 9" TERM; echo $GREETING; cat /proc/version; while :; do sleep 0.1; done'
        )
        await driver.start(job, busybox_image, script, runtime=name)
        await until(lambda: job.out.count(b"\n") > 1, 20)
        assert job.out.startswith(b"hello\n")
        # gVisor answers with the name of another kernel.
        assert (b"Linux version 4.4.0" in job.out) == (name == "runsc")
        answer = await session.exec(job.id, ["/bin/echo", "inside"], 20)
        assert (answer.stdout, answer.exit.exit_code) == (b"inside\n", 0)
        await session.stop(job.id, 20, "SIGTERM")
        assert (await session.wait(job.id)).exit_code == 9
        await driver.end(job)
        short = driver.task()
        await driver.start(short, busybox_image, "echo bye; exit 4", runtime=name)
        assert (await session.wait(short.id)).exit_code == 4
        await driver.end(short)
        assert bytes(short.out) == b"bye\n"


async def test_a_start_that_fails_under_gvisor_leaves_no_sandbox(
    other_driver: Driver, runtimes_dir: Path, busybox_image: str
) -> None:
    runsc = need_program("runsc")
    # The start fails after the create: the sandbox exists, and runsc kill refuses.
    (runtimes_dir / "runsc").write_text(
        f'#!/bin/sh\ncase "$*" in *" start "*) echo no >&2; exit 1;; esac\n'
        f'exec {runsc} --network=none "$@"\n'
    )
    driver = other_driver
    async with launched(driver):
        job = driver.task()
        with pytest.raises(DriverError, match="cannot start the task"):
            await driver.start(job, busybox_image, "true", runtime="runsc")
        driver.wait_clean()
        sandboxes = [
            entry
            for entry in Path("/proc").glob("[0-9]*/cmdline")
            if job.container.encode() in entry.read_bytes()
        ]
        assert sandboxes == []


async def test_the_operator_says_which_runtimes_a_job_may_name(
    driver: Driver, busybox_image: str
) -> None:
    await driver.session.launch()
    try:
        job = driver.task()
        with pytest.raises(DriverError, match=r"'kata-x' is not allowed on this node .*runc"):
            await driver.session.start(job.config, {"image": busybox_image, "runtime": "kata-x"})
    finally:
        await driver.session.close()


def test_a_runtime_is_probed_on_a_file_system_without_devices(tmp_path: Path) -> None:
    """Covers a probe below /run, which systemd mounts with nodev."""
    need_program("runc")
    if os.geteuid() != 0:
        pytest.skip("only root probes runtimes")
    mount("tmpfs", str(tmp_path), "tmpfs", MS_NODEV, "mode=700")
    try:
        found = {program.name: program.refusal for program in runtime_programs.probe(tmp_path)}
    finally:
        unmount(str(tmp_path))
    assert found["runc"] == ""


async def test_only_runtimes_that_start_tasks_are_offered(
    driver: Driver, busybox_image: str
) -> None:
    """Covers crun and gVisor without the tests' wrappers, on machines that either refuses."""
    here = [name for name in ("runc", "crun", "runsc") if shutil.which(name)]
    async with launched(driver) as session:
        async with contextlib.aclosing(session.fingerprints()) as looks:
            async for look in looks:
                if f"driver.containerd-driver.{here[-1]}.version" in look.attributes:
                    break
        offered = str(look.attributes["driver.containerd-driver.runtimes"]).split(",")
        for name in here:
            job = driver.task()
            try:
                await driver.start(job, busybox_image, "exit 4", runtime=name)
            except DriverError:
                started = False
            else:
                started = (await session.wait(job.id)).exit_code == 4
            await driver.end(job)
            assert started == (name in offered), name
