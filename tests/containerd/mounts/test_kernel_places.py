"""Tests of mounts at /dev and /sys: Nomad's, those of privileged tasks, and of monitors."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.model.nomad import MountConfig
from proto.errors import DriverError
from tests.support.daemons import runtimes
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.needs import need_containerd, need_program
from tests.support.plugin.driver import Driver, Job, launched

pytestmark = pytest.mark.containerd
NODE = "/dev/driver-test-place"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerdDaemon]:
    """Yields a containerd that finds the runtimes of the test."""
    need_containerd()
    directory = tmp_path_factory.mktemp("runtimes")
    runtimes.wrap(directory)
    with ContainerdDaemon(path=str(directory)) as running:
        yield running


@pytest.fixture(params=["runc", "crun"])
def runtime(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    need_program(name)
    return name


@pytest.fixture
def node() -> Iterator[str]:
    """Makes a device of the host which no container has by default."""
    os.mknod(NODE, stat.S_IFCHR | 0o600, os.makedev(1, 11))
    try:
        yield NODE
    finally:
        Path(NODE).unlink()


@pytest.fixture
def place_driver(daemon: ContainerdDaemon, tmp_path: Path) -> Iterator[Driver]:
    made = Driver(daemon, tmp_path, {"allow_privileged": True})
    try:
        yield made
        made.wait_clean()
    finally:
        made.close()


def nomads(host_path: str, task_path: str, mode: str = "", **more: Any) -> MountConfig:
    fields = {"readonly": False, **more}
    return MountConfig(task_path=task_path, host_path=host_path, propagation_mode=mode, **fields)


async def output(driver: Driver, job: Job, image: str, script: str, **options: Any) -> str:
    """Returns the output of a task from start to end."""
    await driver.start(job, image, script, **options)
    await driver.session.wait(job.id)
    await driver.end(job)
    return (job.out + job.err).decode()


# Mounts and devices of Nomad's client for a task with a csi_plugin block (csi_hook.go).
def of_csi(directory: Path) -> tuple[MountConfig, ...]:
    for name in ("plugin", "staging"):
        (directory / name).mkdir()
    return (
        nomads(str(directory / "plugin"), "/csi", "bidirectional"),
        nomads(str(directory / "staging"), "/local/csi", "bidirectional"),
        nomads("/dev", "/dev"),
    )


@pytest.mark.parametrize("privileged", [True, False])
async def test_a_csi_plugin_has_the_hosts_dev_and_its_directories(
    place_driver: Driver,
    busybox_image: str,
    runtime: str,
    node: str,
    tmp_path: Path,
    privileged: bool,
) -> None:
    script = (
        f"ls {node}; touch /csi/csi.sock /local/csi/x && echo made;"
        "echo x > /dev/null && cut -d' ' -f2 /proc/mounts"
    )
    async with launched(place_driver):
        job = place_driver.task()
        job.config = dataclasses.replace(job.config, mounts=of_csi(tmp_path))
        before = sorted(path.name for path in Path("/dev").iterdir())
        said = await output(
            place_driver, job, busybox_image, script, runtime=runtime, privileged=privileged
        )
        assert said.startswith(f"{node}\nmade\n"), said
        # No mount of the runtime covers the host's mounts at the place.
        assert said.split().count("/dev") == 1
        assert "/dev/mqueue" not in said.split() or Path("/dev/mqueue").is_mount()
        assert (tmp_path / "plugin/csi.sock").exists()
        assert sorted(path.name for path in Path("/dev").iterdir()) == before


@pytest.mark.parametrize(
    ("host_path", "task_path", "look"),
    [
        ("/sys", "/sys", "test -d /sys/kernel && test -d /sys/fs/cgroup"),
        ("/sys/fs/cgroup", "/sys/fs/cgroup", "test -d /sys/fs/cgroup"),
        ("/sys/kernel", "/sys/kernel", "test -d /sys/kernel"),
        ("/dev/shm", "/dev/shm", "test -d /dev/shm"),
        ("/dev/null", "/dev/other", "test -c /dev/other"),
    ],
)
async def test_nomads_own_mounts_and_those_of_a_privileged_task_go_to_dev_and_sys(
    place_driver: Driver,
    busybox_image: str,
    runtime: str,
    host_path: str,
    task_path: str,
    look: str,
) -> None:
    async with launched(place_driver):
        script = f"{look} && echo here; cut -d' ' -f2 /proc/mounts"
        job = place_driver.task()
        job.config = dataclasses.replace(job.config, mounts=(nomads(host_path, task_path),))
        said = await output(place_driver, job, busybox_image, script, runtime=runtime)
        own = await output(
            place_driver,
            place_driver.task(),
            busybox_image,
            script,
            runtime=runtime,
            privileged=True,
            volumes=[f"{host_path}:{task_path}"],
        )
        for text in (said, own):
            assert text.startswith("here\n")
            assert text.split().count(task_path) == 1


async def test_a_privileged_task_may_have_the_hosts_dev(
    place_driver: Driver, busybox_image: str, runtime: str, node: str
) -> None:
    async with launched(place_driver):
        said = await output(
            place_driver,
            place_driver.task(),
            busybox_image,
            f"ls {node}; echo x > /dev/null; cut -d' ' -f2 /proc/mounts | grep -c '^/dev$'",
            runtime=runtime,
            privileged=True,
            volumes=["/dev:/dev"],
        )
        assert said == f"{node}\n1\n"


async def test_other_mounts_there_are_refused_by_name(
    place_driver: Driver, busybox_image: str, tmp_path: Path
) -> None:
    refused = [
        *("/srv:/dev:ro", "/dev:/dev:ro", "/dev:/dev", "/sys:/sys", "/srv:/sys:ro"),
        *("/sys:/sys:ro,rshared", "/sys/../srv:/sys:ro", "/proc:/proc:ro", "/sys:/dev/pts:ro"),
        *("/dev/urandom:/dev/random", "/dev/mqueue:/dev/mqueue", "/srv:/sys/fs/cgroup:ro"),
    ]

    async def fails(**options: Any) -> None:
        job = place_driver.task()
        volumes = options.pop("nomads", ())
        job.config = dataclasses.replace(job.config, mounts=volumes)
        with pytest.raises(DriverError, match="container's own"):
            await place_driver.start(job, busybox_image, "true", **options)

    async with launched(place_driver):
        for text in refused:
            await fails(volumes=[text])
        await fails(mounts=[{"type": "tmpfs", "target": "/sys", "options": ["ro"]}])
        await fails(privileged=True, volumes=["/proc:/proc"])
        # A volume at a place of the job's choice, with files of a task.
        await fails(nomads=(nomads(str(tmp_path), "/dev"),))
        await fails(nomads=(nomads(str(tmp_path), "/dev/pts"),))
        await fails(nomads=(nomads(str(tmp_path), "/proc/x"),))
