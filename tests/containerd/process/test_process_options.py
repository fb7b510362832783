"""Tests of process options and limits, as the kernel shows them inside and outside."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from actors.model.nomad import Resources
from proto.errors import DriverError
from tests.support.needs import need_program
from tests.support.plugin.driver import MIB, Driver, launched
from tests.support.waiting import until
from tests.support.workers.peers import has_ended

pytestmark = pytest.mark.containerd


async def _printed(driver: Driver, image: str, script: str, **options: Any) -> str:
    async with launched(driver):
        return await driver.output(image, script, **options)


def _limit(container: str, v1: str, v2: str) -> str:
    """Reads a cgroup file of a container, by the names on both cgroup versions."""
    controller = v1.split(".", maxsplit=1)[0]
    found = [
        path
        for path in Path("/sys/fs/cgroup").glob(f"*/*/{container}")
        if path.parts[4] == controller
    ]
    if found:
        return (found[0] / v1).read_text().strip()
    # On v2 below containerd's namespace, here the tests' own.
    (only,) = Path("/sys/fs/cgroup").glob(f"*/{container}")
    return (only / v2).read_text().strip()


async def test_ulimits_shm_and_oom_score_are_the_kernels(
    driver: Driver, busybox_image: str
) -> None:
    text = await _printed(
        driver,
        busybox_image,
        "ulimit -Sn; ulimit -Hn; df -k /dev/shm | tail -1; cat /proc/self/oom_score_adj",
        ulimit=[{"nofile": "1000:2000"}],
        shm_size="100001",
        oom_score_adj=321,
    )
    soft, hard, shm, score = text.splitlines()
    assert (soft, hard, score) == ("1000", "2000", "321")
    # 100001 bytes are 98 KiB; tmpfs counts in pages.
    assert int(shm.split()[1]) == 100


async def test_sysctls_are_the_tasks_own(driver: Driver, busybox_image: str) -> None:
    text = await _printed(
        driver,
        busybox_image,
        "cat /proc/sys/net/core/somaxconn /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni",
        sysctl=[{"net.core.somaxconn": "16384", "net.ipv4.ip_forward": "1", "kernel.shmmni": "77"}],
    )
    assert text.split() == ["16384", "1", "77"]


async def test_host_namespaces_are_the_hosts(driver: Driver, busybox_image: str) -> None:
    kinds = ("pid", "ipc", "uts")
    script = "; ".join(f"readlink /proc/self/ns/{kind}" for kind in kinds)
    own = [str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in kinds]
    assert set((await _printed(driver, busybox_image, script)).split()).isdisjoint(own)
    modes = {f"{kind}_mode": "host" for kind in kinds}
    assert (await _printed(driver, busybox_image, script, **modes)).split() == own


async def test_a_task_in_the_hosts_pid_namespace_takes_its_children_along(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        script = "sleep 1000 & echo $!; wait"
        await driver.start(job, busybox_image, script, pid_mode="host")
        await until(lambda: job.out.endswith(b"\n"), 10)
        child = int(job.out)
        words = Path(f"/proc/{child}/cmdline")
        await until(lambda: words.read_bytes() == b"sleep\x001000\x00", 10, "no sleep")
        await session.stop(job.id, 0, "SIGKILL")
        await driver.end(job)
        await until(lambda: has_ended(child), 10)


async def test_groups_are_added_to_the_users_own(driver: Driver, busybox_image: str) -> None:
    async with launched(driver):
        job = driver.task(user="1000:1000")
        text = await driver.output(busybox_image, "id -G", job, group_add=["5000", "6000", "5000"])
        assert text.split() == ["1000", "5000", "6000"]
        lost = driver.task()
        with pytest.raises(DriverError, match=r"no groups found.*'nowhere'"):
            await driver.start(lost, busybox_image, group_add=["nowhere"])
        driver.wait_clean()


async def test_memory_pids_and_cpu_limits_are_the_cgroups(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver):
        job = driver.task(
            resources=Resources(
                cpu_shares=500,
                memory_mb=32,
                memory_max_mb=64,
                memory_limit_bytes=64 * MIB,
                percent_ticks=0.25,
            )
        )
        await driver.start(
            job,
            busybox_image,
            "sleep 1000",
            pids_limit=17,
            cpu_hard_limit=True,
            cpu_cfs_period=50000,
        )
        name = job.container
        assert _limit(name, "memory.limit_in_bytes", "memory.max") == str(64 * MIB)
        assert _limit(name, "memory.soft_limit_in_bytes", "memory.low") == str(32 * MIB)
        assert _limit(name, "pids.max", "pids.max") == "17"
        quota = round(0.25 * (os.cpu_count() or 1) * 50000)
        assert _limit(name, "cpu.cfs_quota_us", "cpu.max").split()[0] == str(quota)
        await driver.end(job)


async def test_no_hard_limit_leaves_the_reservation_alone(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver):
        job = driver.task(
            resources=Resources(
                cpu_shares=100, memory_mb=32, memory_max_mb=-1, memory_limit_bytes=32 * MIB
            )
        )
        await driver.start(job, busybox_image, "sleep 1000")
        limit = _limit(job.container, "memory.limit_in_bytes", "memory.max")
        assert limit == "max" or int(limit) > 1 << 60
        soft = _limit(job.container, "memory.soft_limit_in_bytes", "memory.low")
        assert soft == str(32 * MIB)
        await driver.end(job)


async def test_the_stop_signal_of_the_job_wins_over_the_images(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        script = 'trap "echo usr1; exit 3" USR1; echo ready; while :; do sleep 0.1; done'
        await driver.start(job, busybox_image, script, stop_signal="SIGUSR1")
        await until(lambda: b"ready" in job.out, 10)
        await session.stop(job.id, 20, "")
        assert (await session.wait(job.id)).exit_code == 3
        await driver.end(job)
        assert b"usr1" in job.out


async def test_an_init_is_process_one_and_passes_codes_and_signals_on(
    driver: Driver, busybox_image: str
) -> None:
    need_program("catatonit", "tini-static", "docker-init")
    async with launched(driver) as session:
        job = driver.task()
        script = 'trap "exit 5" TERM; cat /proc/1/cmdline; echo " $$"; while :; do sleep 0.1; done'
        await driver.start(job, busybox_image, script, init=True)
        await until(lambda: job.out.endswith(b"\n"), 10)
        command, _, pid = job.out.decode().strip().rpartition(" ")
        assert command.startswith("/.init\0--\0/bin/sh\0-c\0")
        assert int(pid) > 1
        await session.stop(job.id, 20, "SIGTERM")
        assert (await session.wait(job.id)).exit_code == 5
        await driver.end(job)


async def test_a_jobs_labels_are_on_the_container_beside_the_drivers(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver):
        job = driver.task()
        await driver.start(job, busybox_image, "sleep 1000", labels=[{"team": "blue"}])
        found = driver.daemon.ctr("containers", "info", job.container)
        assert '"team": "blue"' in found
        assert job.config.alloc_id in found
        await driver.end(job)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sysctl": [{"net.core.somaxconn": "1"}], "host_network": True}, "the host's own value"),
        ({"sysctl": [{"kernel.shmmax": "1"}], "ipc_mode": "host"}, "the host's own value"),
        ({"uts_mode": "host", "hostname": "a"}, "mutually exclusive"),
        ({"runtime": "/bin/sh"}, "is not allowed on this node"),
        ({"runtime": "io.containerd.kata.v2"}, "is not installed"),
        ({"shm_size": "5"}, "Error in setting shm_size"),
        ({"pid_mode": "container:x"}, "Invalid pid_mode"),
    ],
)
async def test_what_cannot_be_is_refused_before_the_image_is_asked_for(
    driver: Driver, options: dict[str, object], words: str
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        # No server listens at the address: a pull would fail with other words.
        with pytest.raises(DriverError, match=words):
            await session.start(job.config, {"image": "127.0.0.1:1/none:1", **options})
        driver.wait_clean()
