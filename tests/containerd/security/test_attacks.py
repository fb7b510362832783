"""Tests of attacks by a hostile job on the host, numbered as in the threat table, all for real.

S1 to S5 (mounts) are in test_mounts.py, S10 in test_security.py, S13 and S22 of pulls in
test_image_credentials.py, the rest of S22 in test_secrets.py, S19 in test_hostile_images.py, S23 in
test_life.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.model.nomad import TaskState
from proto.errors import DriverError
from tests.support.kernel.device_nodes import tripwire
from tests.support.plugin.driver import SLEEPER, Driver, Job, launched
from tests.support.registries import images
from tests.support.registries.registry import Registry
from tests.support.waiting import until
from tests.support.workers.launcher import worker_pid
from workers import protocol

pytestmark = pytest.mark.containerd


async def refusal(driver: Driver, job: Job, image: str, **options: Any) -> str:
    """Returns the reason why a task does not start, and checks that nothing of the task is left."""
    with pytest.raises(DriverError) as caught:
        await driver.session.start(job.config, {"image": image, **options})
    assert "the containerd driver failed inside" not in str(caught.value)
    driver.wait_clean()
    return str(caught.value)


async def test_s5_no_link_of_an_image_leads_a_mount_below_proc(
    driver: Driver, registry: Registry
) -> None:
    links: dict[str, images.Entry] = {"p": "/proc", "q": "/proc/self"}
    built = images.build([images.busybox_layer(links)])
    image = images.push(registry.host, "s5", "1", built)
    async with launched(driver):
        for target in ("/p", "/p/sys/kernel", "/q/attr"):
            mount: dict[str, Any] = {"type": "bind", "source": "local", "target": target}
            mount["options"] = ["rbind", "rw"]
            said = await refusal(driver, driver.task(), image, mounts=[mount], **ECHO)
            assert "proc" in said


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """Yields a file of the host which an attacker would write; the file must not change."""
    path = tmp_path / "cron"
    path.write_text("as it was\n")
    yield path
    assert path.read_text() == "as it was\n"


def swap(fifo: Path, kind: str, target: Path) -> None:
    """Replaces Nomad's FIFO by an object which a task could make."""
    fifo.unlink()
    match kind:
        case "link":
            fifo.symlink_to(target)
        case "link to a FIFO":
            (target.parent / "other").unlink(missing_ok=True)
            os.mkfifo(target.parent / "other")
            fifo.symlink_to(target.parent / "other")
        case "file":
            fifo.write_text("")
        case "device":
            tripwire(fifo)
        case _:
            fifo.mkdir()


ECHO: dict[str, Any] = {"command": "/bin/echo", "args": ["evil"]}
KINDS = ["link", "link to a FIFO", "file", "device", "directory"]


async def test_s12_a_log_fifo_that_became_something_else_stops_a_start(
    driver: Driver, busybox_image: str, target: Path
) -> None:
    async with launched(driver):
        for stream in ("stdout", "stderr"):
            for kind in KINDS:
                job = driver.task()
                fifo = job.alloc.fifo("t", stream)
                swap(fifo, kind, target)
                said = await refusal(driver, job, busybox_image, **ECHO)
                assert f"cannot keep the log FIFO {fifo} open: the file is not a FIFO" in said
                if kind == "file":
                    assert fifo.read_text() == ""


@pytest.mark.parametrize("kind", ["link", "file", "device"])
async def test_s12_a_log_fifo_that_became_something_else_stops_a_recovery(
    driver: Driver, busybox_image: str, target: Path, kind: str
) -> None:
    """Kills plugin and worker, so that the FIFO is opened anew; the task itself keeps running."""
    if kind == "device":
        tripwire(target.parent / "trial")  # skips before anything is made
    async with launched(driver) as session:
        job = driver.task()
        handle = await driver.start(job, busybox_image, SLEEPER)
        await until(lambda: b"ready" in job.out, 10)
        session.kill_plugin()
        worker = worker_pid(driver.state_dir / "tasks" / job.container)
        assert worker is not None
        os.kill(worker, signal.SIGKILL)
        swap(job.alloc.fifo("t", "stdout"), kind, target)
        await session.launch()
        with pytest.raises(DriverError, match="open: the file is not a FIFO"):
            await session.recover(handle)
        # Nomad destroys a task after a failed recovery, and starts the task anew.
        await driver.end(job)
        driver.wait_clean()


async def test_s12_a_log_fifo_that_is_swapped_during_the_start_leads_nowhere(
    driver: Driver, busybox_image: str, target: Path
) -> None:
    """Swaps the FIFO after the worker's check and before the shim opens the log."""
    async with launched(driver) as session:
        job = driver.task()
        fifo = job.alloc.fifo("t", "stdout")
        control = driver.state_dir / "tasks" / job.container / protocol.CONTROL_SOCKET

        async def swapper() -> None:
            while not control.exists():
                await asyncio.sleep(0)
            (target.parent / "link").symlink_to(target)
            (target.parent / "link").rename(fifo)

        swapping = asyncio.create_task(swapper())
        await driver.start(job, busybox_image, "echo evil")
        await swapping
        assert (await session.wait(job.id)).exit_code == 0
        await driver.end(job)
        assert bytes(job.out) == b"evil\n"


async def test_s15_no_config_takes_the_other_tasks_of_the_node_along(
    driver: Driver, busybox_image: str, registry: Registry
) -> None:
    """Tries configs that killed the original driver, and similar configs, beside a running task."""
    empty = images.push(registry.host, "s15", "1", images.build([images.busybox_layer()]))
    attacks: list[dict[str, Any]] = [
        {"image": empty, "entrypoint": []},
        {"image": empty, "entrypoint": [""]},
        {"image": empty, "entrypoint": ["", ""], "args": [""]},
        {"args": ["x"] * 10_000},
        {"args": ["x" * 2_000] * 1_024, "command": "/bin/none"},
        {"args": ["x" * 128 * 1024]},
        {"command": "/bin/none\n\x1b[0m\u202e"},
        {"labels": [{f"k{number}": "v" * 5_000 for number in range(1000)}]},
        {"group_add": ["9" * 5_000]},
        {"cwd": "/" + "a" * 4_000},
        {"image": "a" * 4_000},
        {"image": "\u202e\u2028"},
    ]
    async with launched(driver) as session:
        pid = session.pid
        neighbour = driver.task("n")
        await driver.start(neighbour, busybox_image, SLEEPER)
        for attack in attacks:
            with pytest.raises(DriverError) as caught:
                await session.start(driver.task().config, {"image": busybox_image, **attack})
            assert "the containerd driver failed inside" not in str(caught.value)
            assert len(str(caught.value)) < 4096
        assert session.pid == pid
        assert session.alive
        assert (await session.inspect(neighbour.id)).state is TaskState.RUNNING
        await session.stop(neighbour.id)
        assert (await session.wait(neighbour.id)).exit_code == 0
        await driver.end(neighbour)


async def test_s15_an_environment_of_megabytes_runs_or_is_refused_in_words(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver):
        fits = {f"A{number}": "x" * 20_000 for number in range(90)}
        job = driver.task(env=fits)
        script = "echo ${#A7}"
        assert await driver.output(busybox_image, script, job) == "20000\n"
        for env, words in (
            ({"BIG": "hush" * 500_000}, "env: 'BIG' has 2000004 bytes"),
            ({f"A{number}": "x" * 90_000 for number in range(80)}, "more than 6 MiB together"),
            ({f"A{number}": "x" * 100_000 for number in range(200)}, "more than 6 MiB"),
        ):
            said = await refusal(driver, driver.task(env=env), busybox_image)
            assert words in said
            assert "hush" not in said


async def test_s16_no_working_directory_is_a_descriptor_of_the_runtime(
    driver: Driver, registry: Registry
) -> None:
    """Names descriptors in the job, in the image, and in a link of the image."""
    links: dict[str, images.Entry] = {f"fd{n}": f"/proc/self/fd/{n}" for n in range(3, 13)}
    linked = images.build([images.busybox_layer(links)])
    image = images.push(registry.host, "s16", "1", linked)
    config = {"WorkingDir": "//proc/self/fd/8", "Cmd": ["/bin/true"]}
    named = images.build([images.busybox_layer()], config)
    own = images.push(registry.host, "s16", "own", named)
    script = "ls -d ../../../../etc/shadow ../../../../../etc/shadow /etc/shadow"
    async with launched(driver) as session:
        assert "cwd: " in await refusal(driver, driver.task(), own)
        for written in ("/proc/self/fd/8", "//proc/self/fd/8"):
            assert "cwd: " in await refusal(driver, driver.task(), image, cwd=written, **ECHO)
        for link in links:
            job = driver.task()
            with contextlib.suppress(DriverError):
                await driver.start(job, image, script, cwd=f"/{link}")
                await session.wait(job.id)
                await driver.end(job)
            assert job.out == b"", (link, job.out)


RUNTIMES = [
    "/bin/sh",
    "/usr/bin/containerd-shim-runc-v2",
    "../../../bin/sh",
    "runc/../../bin/sh",
    "io.containerd.evil.v1",
    "io.containerd.runc.v2\n",
    "io.containerd.runc.v2/../../x",
    "runc ",
    "RUNC",
    "unix:///tmp/shim.sock",
]


async def test_s20_no_job_names_a_program_of_the_host_as_its_runtime(
    driver: Driver, registry: Registry
) -> None:
    never_there = f"{registry.host}/never-there:1"
    async with launched(driver):
        for runtime in RUNTIMES:
            said = await refusal(driver, driver.task(), never_there, runtime=runtime)
            assert "is not allowed on this node" in said


NAMES = [
    "a b",
    "é☃",
    "-x",
    "*",
    "a:b",
    "x\ny",
    "a/b",
    "n" * 200,
    "$(id)",
    "%s",
    "a.scope",
    "A" * 76,
]


async def test_s25_any_name_of_a_task_is_a_plain_name_of_a_container(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver) as session:
        for name in NAMES:
            config = _named(driver.task(), name)
            await session.start(config, {"image": busybox_image, "command": "/bin/true"})
            assert (await session.wait(config.id)).exit_code == 0
            (container,) = driver.daemon.ctr("containers", "list", "-q").split()
            assert all(c.isascii() and (c.isalnum() or c in "-._") for c in container)
            assert len(container) <= 76
            (directory,) = (driver.state_dir / "tasks").iterdir()
            assert directory.name == container
            await session.destroy(config.id)


async def test_s25_no_name_of_a_task_leads_out_of_its_allocation(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver):
        for name in ("..", "../x", "../../../../tmp", "/tmp", "a/../../.."):
            job = driver.task()
            job.config = _named(job, name)
            outside = Path(job.config.alloc_dir).parent
            before = sorted(outside.iterdir())
            assert "Error in creating container" in await refusal(driver, job, busybox_image)
            load = await refusal(driver, job, "x:1", load="local/image.tar")
            assert "invalid task name" in load
            assert sorted(outside.iterdir()) == before


def _named(job: Job, name: str) -> Any:
    """Returns the task with another name, and makes the task's directories if the name allows."""
    base = Path(job.config.alloc_dir)
    for directory in ("local", "secrets") if ".." not in name and name[0] != "/" else ():
        (base / name / directory).mkdir(parents=True, exist_ok=True)
    return dataclasses.replace(
        job.config,
        id=f"{job.config.alloc_id}/{name}/00000001",
        name=name,
        stdout_path="",
        stderr_path="",
    )
