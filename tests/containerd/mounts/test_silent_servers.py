"""Tests of silent file servers below tasks with mounts; other tasks notice nothing."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.model.nomad import DeviceConfig, Health, MountConfig
from proto.errors import DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.kernel.file_server import FileServer
from tests.support.plugin.driver import Driver, Job, launched
from tests.support.waiting import until

pytestmark = pytest.mark.containerd

# Far more than a start, a stop or a probe takes on a busy machine, far less than any wait here.
USUAL_S = 8.0
BOUND_S = 40.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    with FileServer(tmp_path / "shared") as running:
        yield running


def bind(source: Path) -> dict[str, Any]:
    return {"type": "bind", "source": str(source), "target": "/data", "options": ["rbind", "ro"]}


async def refused(driver: Driver, image: str, job: Job | None = None, **options: Any) -> str:
    job = job or driver.task()
    with pytest.raises(DriverError) as failed:
        await driver.session.start(job.config, {"image": image, "command": "/bin/true", **options})
    return str(failed.value)


async def described(driver: Driver, text: str) -> None:
    """Waits until the driver is healthy with the description."""

    async def look() -> None:
        async for found in driver.session.fingerprints():
            assert found.health is Health.HEALTHY
            if found.description.endswith(text) or f" {text}:" in found.description:
                return

    await asyncio.wait_for(look(), BOUND_S)


async def lives(driver: Driver, image: str) -> None:
    """Runs a whole life of a task without mounts, each step in the usual time."""
    job = driver.task()
    await asyncio.wait_for(driver.start(job, image, "echo here; sleep 600"), USUAL_S)
    await until(lambda: job.out == b"here\n", USUAL_S)
    await asyncio.wait_for(driver.session.inspect(job.id), USUAL_S)
    await asyncio.wait_for(driver.session.stop(job.id, 0.1), USUAL_S)
    await asyncio.wait_for(driver.end(job), USUAL_S)


@pytest.mark.parametrize("silence", [FileServer.stop, FileServer.swallow])
async def test_six_starts_that_need_it_fail_by_name_and_a_seventh_task_lives_as_usual(
    driver: Driver,
    busybox_image: str,
    server: FileServer,
    silence: Callable[[FileServer], None],
) -> None:
    async with launched(driver) as session:
        running = driver.task()
        await driver.start(running, busybox_image, "sleep 600", mounts=[bind(server.point)])
        silence(server)
        failing = [
            asyncio.ensure_future(
                refused(driver, busybox_image, mounts=[bind(server.point / str(number))])
            )
            for number in range(6)
        ]
        await lives(driver, busybox_image)
        assert not any(one.done() for one in failing)
        for said in await asyncio.wait_for(asyncio.gather(*failing), BOUND_S):
            assert str(server.point) in said
            assert "no answer of the file server" in said
        await described(driver, str(server.point))
        await lives(driver, busybox_image)
        # A task with a mount of a silent server can still be stopped and removed.
        await asyncio.wait_for(session.stop(running.id, 0.1), USUAL_S)
        await asyncio.wait_for(driver.end(running), USUAL_S)
        server.answer()
        await described(driver, "Healthy")
        await driver.output(busybox_image, "ls /data", mounts=[bind(server.point / "x")])


def mounted_volume(driver: Driver, place: str) -> tuple[Job, dict[str, Any]]:
    job = driver.task()
    volume = MountConfig(task_path="/data", host_path=place, readonly=True)
    job.config = dataclasses.replace(job.config, mounts=(volume,))
    return job, {}


def plugged_device(driver: Driver, place: str) -> tuple[Job, dict[str, Any]]:
    job = driver.task()
    device = DeviceConfig(task_path="/dev/x", host_path=place, cgroup_permissions="r")
    job.config = dataclasses.replace(job.config, devices=(device,))
    return job, {}


def own_device(driver: Driver, place: str) -> tuple[Job, dict[str, Any]]:
    return driver.task(), {"devices": [place]}


def linked(driver: Driver, place: str) -> tuple[Job, dict[str, Any]]:
    job, link = driver.task(), driver.alloc_root / "link"
    link.symlink_to(place)
    return job, {"mounts": [bind(link)]}


def allocation(driver: Driver, place: str) -> tuple[Job, dict[str, Any]]:
    job = driver.task()
    job.config = dataclasses.replace(job.config, alloc_dir=f"{place}/allocs/a")
    return job, {}


async def test_each_path_of_a_job_is_refused_alike(
    driver: Driver, busybox_image: str, server: FileServer
) -> None:
    async with launched(driver):
        place = str(server.point / "data")
        uses = [mounted_volume, plugged_device, own_device, linked, allocation]
        jobs = [use(driver, place) for use in uses]
        server.swallow()
        refusals = [refused(driver, busybox_image, job, **options) for job, options in jobs]
        for said in await asyncio.wait_for(asyncio.gather(*refusals), BOUND_S):
            assert str(server.point) in said
        await lives(driver, busybox_image)
        server.answer()


OPERATORS_PATHS: list[dict[str, dict[str, Any]]] = [
    {
        "seccomp_profile_dir": {"seccomp": True, "seccomp_profile": "p.json"},
        "cdi_spec_dirs": {"devices": ["vendor.com/net=eth0"]},
        "init_path": {"init": True},
        "registry_config_path": {"force_pull": True},
    },
    # A pull reads both registry_config_path and auth.
    {"auth": {"force_pull": True}},
]
"""Maps each option to a wish of a task for which the plugin reads the path of the option."""


@pytest.mark.parametrize("wishes", OPERATORS_PATHS)
async def test_each_path_of_the_operator_is_refused_by_its_name_alone(
    containerd: ContainerdDaemon,
    tmp_path: Path,
    busybox_image: str,
    server: FileServer,
    wishes: dict[str, dict[str, Any]],
) -> None:
    place = str(server.point / "data")
    values: dict[str, Any] = {"cdi_spec_dirs": [place], "auth": {"config": place}}
    driver = Driver(containerd, tmp_path, {option: values.get(option, place) for option in wishes})
    async with launched(driver):
        await driver.output(busybox_image, "true")
        server.swallow()
        refusals = [refused(driver, busybox_image, **wish) for wish in wishes.values()]
        texts = await asyncio.wait_for(asyncio.gather(*refusals), BOUND_S)
        for option, said in zip(wishes, texts, strict=True):
            assert str(server.point) in said
            assert [name for name in wishes if name in said] == [option]
        await lives(driver, busybox_image)
        server.answer()
    driver.wait_clean()
    driver.close()


async def test_one_that_falls_silent_under_the_runtime_ends_the_start_by_name(
    driver: Driver, busybox_image: str, tmp_path: Path
) -> None:
    with FileServer(tmp_path / "later", avoids="runc") as later:
        async with launched(driver):
            await driver.output(busybox_image, "true")
            starting = asyncio.ensure_future(
                refused(driver, busybox_image, mounts=[bind(later.point / "data")])
            )
            await until(later.holds, BOUND_S)
            later.swallow()
            await lives(driver, busybox_image)
            said = await asyncio.wait_for(starting, 4 * BOUND_S)
            assert f"no answer of the file server of {later.point}" in said
            await lives(driver, busybox_image)
            later.answer()
