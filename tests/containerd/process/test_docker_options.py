"""Options of docker and podman jobs, many in each task, as a task and the kernel show them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from actors.model.nomad import DnsConfig, Resources
from proto.errors import DriverError
from tests.support.plugin.agent_session import AgentSession
from tests.support.plugin.driver import MIB, Driver, launched
from tests.support.waiting import until

pytestmark = pytest.mark.containerd
MEMORY = Resources(cpu_shares=100, memory_mb=32, memory_limit_bytes=32 * MIB)


def _limit(container: str, v1: str, v2: str) -> str:
    """Reads a cgroup file of a container, by the names on both cgroup versions."""
    old = list(Path("/sys/fs/cgroup", v1.partition(".")[0]).glob(f"*/{container}/{v1}"))
    (file,) = old or Path("/sys/fs/cgroup").glob(f"*/{container}/{v2}")
    return file.read_text().strip()


async def _warning(session: AgentSession) -> str:
    """Returns the event about options without effect; the first subscriber gets earlier events."""
    async with contextlib.aclosing(session.events()) as events:
        async for event in events:
            if event.message.startswith("options without effect"):
                return event.message
    raise AssertionError


async def test_a_docker_job_runs_unchanged(driver: Driver, busybox_image: str) -> None:
    script = "pwd; umask; cat /etc/resolv.conf; cat /proc/self/status | grep Cpus_allowed_list; "
    script += "readlink /proc/self/ns/cgroup; ls /data; grep ' /mnt ' /proc/mounts; sleep 1000"
    async with launched(driver) as session:
        job = driver.task(resources=MEMORY)
        local = job.alloc.path / "t/local"
        (local / "data").mkdir()
        (local / "data/f").touch()
        job.read_logs()
        config: dict[str, Any] = {
            "image": busybox_image,
            "entrypoint": ["/bin/sh"],
            "command": "-c",
            "args": [script],
            "work_dir": "/srv/made",
            "umask": "027",
            "dns_servers": ["192.0.2.53"],
            "dns_search_domains": ["corp.example"],
            "dns_options": ["ndots:2"],
            "memory_hard_limit": 64,
            "cpuset_cpus": "0",
            "cgroupns": "host",
            "mounts": [
                {
                    "type": "bind",
                    "source": "local/data",
                    "target": "/data",
                    "volume_options": [{"no_copy": True}],
                },
                {"type": "tmpfs", "target": "/mnt", "tmpfs_options": [{"size": "65536"}]},
            ],
            "labels": {"team": "a"},
            "isolation": "process",
            "healthchecks": [{"disable": True}],
        }
        await session.start(job.config, config)
        await until(lambda: b" /mnt " in job.out, 10, "no mounts")
        lines = job.out.decode().splitlines()
        assert lines[:6] == [
            "/srv/made",
            "0027",
            "search corp.example",
            "nameserver 192.0.2.53",
            "options ndots:2",
            "Cpus_allowed_list:\t0",
        ]
        assert lines[6] == str(Path("/proc/self/ns/cgroup").readlink())
        assert lines[7] == "f"
        assert "size=64k" in lines[8]
        name = job.container
        assert _limit(name, "memory.limit_in_bytes", "memory.max") == str(64 * MIB)
        assert _limit(name, "memory.soft_limit_in_bytes", "memory.low") == str(32 * MIB)
        warning = await _warning(session)
        assert "isolation: only Windows" in warning
        assert "mounts[0].volume_options.no_copy" in warning
        await session.stop(job.id, 0, "SIGKILL")
        await driver.end(job)


async def test_a_podman_job_runs_unchanged(driver: Driver, busybox_image: str) -> None:
    script = "pwd; cat /bin/kept 2>&1; ls /etc/passwd; echo x > /etc/new && ls /etc/new; sleep 1000"
    disk = next(f"/dev/{place.name}" for place in Path("/sys/block").iterdir())
    async with launched(driver) as session:
        job = driver.task(resources=MEMORY, dns=DnsConfig(servers=("192.0.2.1",)))
        await driver.start(
            job,
            busybox_image,
            working_dir="/tmp",
            entrypoint="/bin/sh",
            args=["-c", script],
            tmpfs=["/etc:size=1m", "/bin2:notmpcopyup"],
            memory_reservation="16m",
            memory_swap="48m",
            device_read_bps=[f"{disk}:1M"],
            device_write_iops=[f"{disk}:100"],
            dns_servers=["192.0.2.53"],
            auth={"tls_verify": True},
            socket="default",
        )
        await until(lambda: b"/etc/new" in job.out, 10, "no file")
        assert job.out.decode().splitlines()[0] == "/tmp"
        assert "/etc/passwd" in job.out.decode()
        name = job.container
        assert _limit(name, "memory.soft_limit_in_bytes", "memory.low") == str(16 * MIB)
        read = _limit(name, "blkio.throttle.read_bps_device", "io.max")
        assert str(MIB) in read.replace("=", " ").split()
        await session.stop(job.id, 0, "SIGKILL")
        await driver.end(job)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"memory_hard_limit": 16}, "memory_hard_limit: 16 MB is less than the 32 MB of memory"),
        ({"cpuset_cpus": "4000"}, "cpuset_cpus: the processors 4000 are not granted"),
        ({"mac_address": "02:00:00:00:00:01"}, "mac_address: is not supported: Nomad and CNI"),
    ],
)
async def test_a_refused_option_leaves_nothing(
    driver: Driver, options: dict[str, object], words: str
) -> None:
    async with launched(driver) as session:
        job = driver.task(resources=MEMORY)
        with pytest.raises(DriverError, match=words):
            await session.start(job.config, {"image": "no.such.registry/x", **options})
        driver.wait_clean()
