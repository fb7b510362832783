"""Tests of hosts, hostname and resolv.conf of real containers, and of the joined network."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.model.nomad import DnsConfig, NetworkIsolation, PortMapping, Resources
from plugin.host.network import namespaces
from proto.errors import DriverError
from tests.support.kernel.own_network import OwnNetwork
from tests.support.plugin.driver import MIB, Driver, Job, launched

pytestmark = pytest.mark.containerd

ADDRESS = "10.213.7.2"
GATEWAY = "10.213.7.1"


async def printed(
    driver: Driver, image: str, script: str, job: Job | None = None, **options: Any
) -> str:
    async with launched(driver):
        return await driver.output(image, script, job, **options)


@pytest.fixture
def network() -> Iterator[NetworkIsolation]:
    """Yields a namespace with an address and a route, as Nomad's bridge gives an allocation."""
    with OwnNetwork() as own:
        for command in (
            "ip link add eth0 type bridge",
            "ip link set eth0 up",
            f"ip address add {ADDRESS}/24 dev eth0",
            f"ip route add default via {GATEWAY}",
        ):
            assert own.run("busybox", *command.split()).stderr == ""
        yield NetworkIsolation(mode=1, path=namespaces.path(own.name))


async def test_a_task_knows_its_own_name_at_its_own_address(
    driver: Driver, busybox_image: str, network: NetworkIsolation
) -> None:
    job = driver.task("web", network=network)
    text = await printed(
        driver,
        busybox_image,
        "hostname; cat /etc/hostname; grep $(hostname) /etc/hosts; cat /proc/net/fib_trie",
        job,
    )
    name, file_name, line, *routes = text.splitlines()
    assert name == file_name == f"web-{job.config.alloc_id[:8]}"
    assert line == f"{ADDRESS}\t{name}"
    assert any(ADDRESS in route for route in routes)


async def test_nomad_hears_of_the_tasks_address_and_the_ports_inside(
    driver: Driver, busybox_image: str, network: NetworkIsolation
) -> None:
    ports = (
        PortMapping(label="http", value=25000, to=8080, host_ip="127.0.0.1"),
        PortMapping(label="same", value=25001, to=0, host_ip="127.0.0.1"),
    )
    job = driver.task(
        network=network, resources=Resources(memory_limit_bytes=64 * MIB, ports=ports)
    )
    async with launched(driver) as session:
        handle = await driver.start(job, busybox_image, "exec sleep 1000")
        for said in (handle.network, (await session.inspect(job.id)).network):
            assert said is not None
            assert (said.addr, said.auto_advertise) == (ADDRESS, False)
            assert said.port_map == {"http": 8080, "same": 25001}
        session.kill_plugin()
        await session.launch()
        await session.recover(handle)
        again = (await session.inspect(job.id)).network
        assert again is not None
        assert again.addr == ADDRESS
        await driver.end(job)


async def test_a_task_is_not_started_again_in_a_namespace_that_has_lost_its_address(
    driver: Driver, busybox_image: str, network: NetworkIsolation
) -> None:
    job = driver.task(network=network)
    again = Job(dataclasses.replace(job.config, id=f"{job.id}2"), job.alloc)
    async with launched(driver) as session:
        await driver.output(busybox_image, "true", job)
        # The undo of a start forgets nothing.
        with pytest.raises(DriverError, match="/no/such/program"):
            await session.start(
                again.config, {"image": busybox_image, "command": "/no/such/program"}
            )
        lose_address(network)
        for _ in range(2):
            with pytest.raises(DriverError, match="has lost the allocation's address") as lost:
                await session.start(again.config, {"image": busybox_image})
            assert lost.value.recoverable
            assert ADDRESS in str(lost.value)


async def test_a_task_starts_again_and_again_in_a_namespace_that_never_had_an_address(
    driver: Driver, busybox_image: str, network: NetworkIsolation
) -> None:
    lose_address(network)
    job = driver.task(network=network)
    async with launched(driver):
        for number in range(2):
            config = dataclasses.replace(job.config, id=f"{job.id}{number}")
            await driver.output(busybox_image, "true", Job(config, job.alloc))


def lose_address(network: NetworkIsolation) -> None:
    """Removes the interface, as a CNI plugin's DEL does."""
    command = ["nsenter", f"--net={network.path}", "busybox", "ip", "link", "del", "eth0"]
    subprocess.run(command, check=True)


async def test_without_a_network_of_its_own_nothing_is_reported(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver):
        job = driver.task()
        handle = await driver.start(job, busybox_image, "true", host_network=True)
        assert handle.network is None
        await driver.end(job)


async def test_extra_hosts_reach_the_container_with_the_hosts_own_lines(
    driver: Driver, busybox_image: str, network: NetworkIsolation
) -> None:
    extra = ["postgres:127.0.1.1", "redis:127.0.1.2"]
    shared = await printed(
        driver, busybox_image, "cat /etc/hosts", host_network=True, extra_hosts=extra
    )
    assert set(Path("/etc/hosts").read_text().splitlines()) <= set(shared.splitlines())
    assert shared.endswith("127.0.1.1\tpostgres\n127.0.1.2\tredis\n")
    own = await printed(
        driver,
        busybox_image,
        "cat /etc/hosts",
        driver.task(network=network),
        extra_hosts=["up:host-gateway"],
    )
    assert own.endswith(f"{GATEWAY}\tup\n")
    assert own.startswith("127.0.0.1\tlocalhost\n")


async def test_a_groups_dns_is_the_tasks_resolv_conf(driver: Driver, busybox_image: str) -> None:
    dns = DnsConfig(
        servers=("127.0.0.1", "127.0.0.2"), searches=("internal.corp",), options=("ndots:2",)
    )
    lines = (
        await printed(driver, busybox_image, "cat /etc/resolv.conf", driver.task(dns=dns))
    ).splitlines()
    assert lines == [
        "search internal.corp",
        "nameserver 127.0.0.1",
        "nameserver 127.0.0.2",
        "options ndots:2",
    ]


async def test_host_dns_is_the_hosts_file_and_false_the_images(
    driver: Driver, busybox_image: str
) -> None:
    script = "cat /etc/resolv.conf 2>/dev/null || echo none"
    assert await printed(driver, busybox_image, script) == Path("/etc/resolv.conf").read_text()
    assert await printed(driver, busybox_image, script, host_dns=False) == "none\n"


async def test_what_a_task_writes_into_its_hosts_is_its_own_and_gone_at_its_next_start(
    driver: Driver, busybox_image: str
) -> None:
    before = Path("/etc/hosts").read_text()
    script = "echo 1.2.3.4 mine >>/etc/hosts; cat /etc/hosts"
    job = driver.task()
    assert "1.2.3.4 mine" in await printed(driver, busybox_image, script, job, host_network=True)
    assert Path("/etc/hosts").read_text() == before
    again = await printed(driver, busybox_image, "cat /etc/hosts", driver.task(alloc_id="a" * 36))
    assert "mine" not in again


async def test_the_files_cannot_be_written_where_the_root_is_read_only(
    driver: Driver, busybox_image: str
) -> None:
    files = "hosts hostname resolv.conf"
    script = f"for f in {files}; do (echo x >>/etc/$f) 2>/dev/null || echo $f; done"
    text = await printed(driver, busybox_image, script, readonly_rootfs=True)
    assert text.split() == files.split()


async def test_a_link_that_a_task_left_is_not_written_through(
    driver: Driver, busybox_image: str, tmp_path: Path
) -> None:
    """Covers S11: the original wrote /local/etc_hosts as root at the next start."""
    victim = tmp_path / "victim"
    victim.write_text("as it was")
    job = driver.task()
    (Path(job.config.alloc_dir) / "t" / "local" / "etc_hosts").symlink_to(victim)
    (Path(job.config.alloc_dir) / "t" / ".etc").symlink_to(tmp_path)
    with pytest.raises(DriverError, match=r"cannot write the task.s hosts, hostname, resolv"):
        await printed(driver, busybox_image, "true", job, extra_hosts=["x:1.2.3.4"])
    assert victim.read_text() == "as it was"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("host")) == []


async def test_a_start_that_fails_leaves_no_name_files(driver: Driver, busybox_image: str) -> None:
    job = driver.task()
    with pytest.raises(DriverError):
        await printed(driver, busybox_image, "", job, command="/no/such/program")
    assert not (Path(job.config.alloc_dir) / "t" / ".etc").exists()


async def test_a_namespace_that_is_gone_is_named_before_anything_is_made(
    driver: Driver, busybox_image: str
) -> None:
    gone = NetworkIsolation(mode=1, path="/var/run/netns/no-such")
    with pytest.raises(DriverError, match=r"cannot enter .* network namespace .*no-such"):
        await printed(driver, busybox_image, "true", driver.task(network=gone))


async def test_the_hosts_network_and_a_bridge_exclude_each_other(
    driver: Driver, busybox_image: str, network: NetworkIsolation
) -> None:
    with pytest.raises(DriverError, match="host_network and bridge network mode are mutually"):
        await printed(
            driver, busybox_image, "true", driver.task(network=network), host_network=True
        )


async def test_the_groups_host_name_is_the_tasks_unless_the_job_sets_another(
    driver: Driver, busybox_image: str, network: NetworkIsolation
) -> None:
    named = dataclasses.replace(network, labels={"docker_sandbox_hostname": "db.internal"})
    script = "hostname; cat /etc/hostname; grep $(hostname) /etc/hosts"
    async with launched(driver):
        text = await driver.output(busybox_image, script, driver.task("web", network=named))
        assert text == f"db.internal\ndb.internal\n{ADDRESS}\tdb.internal db\n"
        job = driver.task("web", network=named)
        assert await driver.output(busybox_image, "hostname", job, hostname="own") == "own\n"
        wrong = dataclasses.replace(network, labels={"docker_sandbox_hostname": "a\n1.2.3.4 evil"})
        with pytest.raises(DriverError, match="is not a host name"):
            await driver.output(busybox_image, "hostname", driver.task("web", network=wrong))
    driver.wait_clean()
