"""Tasks that share a namespace with another task of the allocation, or with another process."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proto.errors import DriverError
from tests.support.kernel.own_network import OwnNetwork
from tests.support.plugin.driver import Driver, Job, launched
from tests.support.waiting import until

pytestmark = pytest.mark.containerd

# No server listens at the address: an error of the pull would show that a check came too late.
NO_IMAGE = "127.0.0.1:1/none:1"
LINKS = "for n in pid ipc net; do readlink /proc/self/ns/$n; done"


@asynccontextmanager
async def main_task(
    driver: Driver, image: str, script: str = LINKS, **options: Any
) -> AsyncIterator[Job]:
    """Starts a task `main` that runs until the end of the block."""
    job = driver.task("main")
    await driver.start(job, image, f"{script}; echo ready; sleep 600 & wait", **options)
    await until(lambda: b"ready" in job.out, 10, "the task says nothing")
    try:
        yield job
    finally:
        await driver.end(job)


def beside(driver: Driver, main: Job, name: str = "side") -> Job:
    """Returns another task of the same allocation, with directories of its own."""
    job, alloc_id = driver.task(name), main.config.alloc_id
    task_id = f"{alloc_id}/{name}/{job.id.rpartition('/')[2]}"
    return replace(job, config=replace(job.config, id=task_id, alloc_id=alloc_id))


async def refusal(driver: Driver, job: Job, **options: Any) -> DriverError:
    """Returns the error of a start."""
    with pytest.raises(DriverError) as caught:
        await driver.session.start(job.config, {"image": NO_IMAGE, **options})
    return caught.value


async def test_a_task_shares_each_namespace_of_another_task(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver), main_task(driver, busybox_image) as main:
        links = main.out.decode().splitlines()[:3]
        own = (await driver.output(busybox_image, LINKS, beside(driver, main))).splitlines()
        assert not set(own) & set(links)
        for number, mode in enumerate(("pid_mode", "ipc_mode", "network_mode")):
            said = await driver.output(
                busybox_image, LINKS, beside(driver, main), **{mode: "task:main"}
            )
            shared = [a == b for a, b in zip(said.splitlines(), links, strict=True)]
            assert shared == [place == number for place in range(3)], mode


async def test_two_tasks_see_the_same_processes_and_the_same_shared_memory(
    driver: Driver, busybox_image: str
) -> None:
    async with (
        launched(driver),
        main_task(driver, busybox_image, "echo of-main >/dev/shm/x", shm_size="1M") as main,
    ):
        said = await driver.output(
            busybox_image,
            "cat /dev/shm/x; echo of-side >/dev/shm/y; df -k /dev/shm | tail -1; ps",
            beside(driver, main),
            ipc_mode="task:main",
            pid_mode="task:main",
        )
        assert said.startswith("of-main\n")
        assert " 1024 " in said
        assert "sleep 600" in said
        said = await driver.output(
            busybox_image, "cat /dev/shm/y", beside(driver, main, "next"), ipc_mode="task:main"
        )
        assert said == "of-side\n"


async def test_the_end_of_the_first_process_ends_the_tasks_in_its_namespace(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver) as session, main_task(driver, busybox_image) as main:
        side = beside(driver, main)
        await driver.start(side, busybox_image, "sleep 600 & wait", pid_mode="task:main")
        await session.stop(main.id, 0.1)
        assert (await session.wait(side.id)).exit_code == 137
        await driver.end(side)
        error = await refusal(driver, beside(driver, main, "late"), pid_mode="task:main")
        assert "no task 'main' of this allocation runs" in str(error)


async def test_only_running_tasks_of_the_same_allocation_can_be_joined(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver), main_task(driver, busybox_image) as main:
        for mode in ("pid_mode", "ipc_mode", "network_mode"):
            error = await refusal(driver, driver.task(), **{mode: "task:main"})
            assert "no task 'main' of this allocation runs with this driver" in str(error)
            assert 'lifecycle { hook = "prestart" sidecar = true }' in str(error)
            assert error.recoverable
            # The name of another allocation's container is no name of a task.
            other = driver.task()
            for name in (main.container, f"main-{main.config.alloc_id}", "../main"):
                assert "no task" in str(await refusal(driver, other, **{mode: f"task:{name}"}))
        error = await refusal(driver, beside(driver, main, "self"), pid_mode="task:self")
        assert "is the task itself" in str(error)


async def test_a_network_of_none_is_empty_also_in_an_allocation_with_a_network(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver):
        said = await driver.output(
            busybox_image, "ls /sys/class/net; cat /etc/hosts", network_mode="none"
        )
    assert said.startswith("lo\n")


async def test_another_network_needs_the_gates_of_the_hosts_network_and_of_modes(
    driver: Driver, busybox_image: str, containerd: Any, tmp_path: Path
) -> None:
    (tmp_path / "closed").mkdir()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    host = str(Path("/proc/self/ns/net").readlink())
    with OwnNetwork() as network:
        path = f"/var/run/netns/{network.name}"
        number = Path(path).stat().st_ino
        async with launched(driver), main_task(driver, busybox_image) as main:
            for mode, link in (
                (f"ns:{path}", f"net:[{number}]"),
                (f"container:{main.container}", main.out.decode().splitlines()[2]),
                (f"ns:/proc/{os.getpid()}/ns/net", host),
            ):
                said = await driver.output(
                    busybox_image, "readlink /proc/self/ns/net", network_mode=mode
                )
                assert said.strip() == link
            for wrong, words in (
                (f"ns:{fifo}", "the file is no namespace"),
                ("ns:/dev/watchdog0", "No such file"),
                ("ns:/etc/passwd", "the file is no namespace"),
                (f"ns:/proc/{os.getpid()}/ns/pid", "the namespace is no network namespace"),
                ("container:none", "no container 'none' runs"),
            ):
                assert words in str(await refusal(driver, driver.task(), network_mode=wrong))
        for block, mode, words in (
            ({"allow_host_network": False}, f"ns:{path}", "allow_host_network is false"),
            ({"allow_privileged": False}, f"ns:{path}", 'cannot apply "network_mode"'),
            ({"allow_privileged": False}, "container:x", 'cannot apply "network_mode"'),
            ({"allow_privileged": False}, "pid", 'cannot apply "pid_mode"'),
        ):
            closed = Driver(containerd, tmp_path / "closed", block)
            (tmp_path / "closed" / "plugins").mkdir(exist_ok=True)
            async with launched(closed):
                options = {"pid_mode": "task:x"} if mode == "pid" else {"network_mode": mode}
                assert words in str(await refusal(closed, closed.task(), **options))
            closed.close()
