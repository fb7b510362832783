"""Network, ports and volumes of an allocation, as the tasks get the parts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from actors.model import cpu_topology
from actors.model.cpu_topology import NodeSpeed
from actors.model.nomad import DnsConfig, MountConfig, NetworkIsolation, PortMapping, TaskConfig
from plugin.cli import arguments as command_line
from plugin.cli import host_arguments
from plugin.host.agent.conversions import task_message
from plugin.host.job.jobfile import Job, JobGroup, JobTask, Template
from plugin.host.job.network import GroupNetwork, Port
from plugin.host.job.volumes import Volume, VolumeMount
from plugin.host.network.cni import Attached
from plugin.host.network.ports import HostPorts
from plugin.host.run import alloc_plan
from plugin.host.run.alloc_plan import Alloc
from plugin.host.run.machine import HostOptions, HostVolume
from plugin.host.run.screen import port_text
from plugin.rpc.conversions import read_task_config
from proto.errors import DriverError

DATA = HostVolume(path="/srv/data")


def allocs(
    root: Path,
    task: dict[str, Any] | None = None,
    volumes_of_host: dict[str, HostVolume] | None = None,
    **group: Any,
) -> list[Alloc]:
    job_task = JobTask(**{"name": "t", "driver": "d", "config": {}, **(task or {})})
    job_group = JobGroup(**{"name": "g", "count": 1, "tasks": (job_task,), **group})
    ports = HostPorts("127.0.0.1")
    try:
        job = Job(id="j", groups=(job_group,))
        return alloc_plan.allocations(job, root, ports, volumes_of_host or {})
    finally:
        ports.close()


def config(root: Path, *arguments: Any, **group: Any) -> TaskConfig:
    (alloc,) = allocs(root, *arguments, **group)
    return alloc.tasks[0].config


@pytest.mark.parametrize("mode", ["bridge", "none"])
def test_a_group_with_a_network_of_its_own_has_one_namespace(tmp_path: Path, mode: str) -> None:
    planned = allocs(tmp_path, network=GroupNetwork(mode=mode), count=2)
    for alloc in planned:
        assert alloc.netns == f"/var/run/netns/{alloc.id}"
        isolation = NetworkIsolation(mode=1, path=alloc.netns)
        assert [task.config.network for task in alloc.tasks] == [isolation]
    assert len({alloc.netns for alloc in planned}) == 2


def test_in_the_hosts_network_a_task_has_no_namespace(tmp_path: Path) -> None:
    (alloc,) = allocs(tmp_path)
    assert (alloc.netns, alloc.tasks[0].config.network) == ("", None)


def test_ports_reach_the_driver_and_the_environment(tmp_path: Path) -> None:
    network = GroupNetwork(mode="bridge", ports=(Port(label="http", to=8080),))
    (alloc,) = allocs(tmp_path, {"config": {"args": ["${NOMAD_PORT_http}"]}}, network=network)
    (task,) = alloc.tasks
    (port,) = task.config.resources.ports
    assert alloc.ports == (port,)
    assert task.config.env["NOMAD_ADDR_http"] == f"127.0.0.1:{port.value}"
    assert task.options == {"args": ["8080"]}


def test_a_task_gets_the_address_of_the_bridge(tmp_path: Path) -> None:
    task = {
        "config": {"args": ["${NOMAD_ALLOC_ADDR_http}", "${NOMAD_TASK_NAME}", "${unknown}"]},
        "env": {"MINE": "${NOMAD_ALLOC_IP_http}", "NOMAD_ALLOC_INTERFACE_http": "own"},
        "templates": (
            Template(data='{{ env "NOMAD_ALLOC_ADDR_http" }}', destination="local/address"),
        ),
    }
    network = GroupNetwork(mode="bridge", ports=(Port(label="http", to=8080),))
    (alloc,) = allocs(tmp_path, task, network=network)
    alloc_plan.build(alloc)
    ready = alloc_plan.attached(alloc, Attached(interface="eth0", address="172.26.80.9"))
    (planned,) = ready.tasks
    assert planned.options == {"args": ["172.26.80.9:8080", "t", "${unknown}"]}
    env = planned.config.env
    assert (env["NOMAD_ALLOC_IP_http"], env["MINE"]) == ("172.26.80.9", "172.26.80.9")
    assert env["NOMAD_ALLOC_INTERFACE_http"] == "own"
    assert env["NOMAD_TASK_NAME"] == "t"
    address = alloc.directory.path / "t" / "local" / "address"
    assert address.read_text() == "172.26.80.9:8080"
    # Calls after the start name the task by this id.
    assert planned.config.id == alloc.tasks[0].config.id


def test_a_task_gets_the_resolver_of_its_group(tmp_path: Path) -> None:
    dns = DnsConfig(servers=("10.0.0.1",), searches=("${NOMAD_JOB_ID}.lan",), options=("ndots:1",))
    assert config(tmp_path).dns is None
    assert config(tmp_path, network=GroupNetwork(dns=dns)).dns == DnsConfig(
        servers=("10.0.0.1",), searches=("j.lan",), options=("ndots:1",)
    )


@pytest.mark.parametrize(
    ("host", "volume", "mount"), [(1, 0, 0), (0, 1, 0), (0, 0, 1)], ids=["host", "volume", "mount"]
)
def test_a_mount_is_read_only_if_host_volume_or_mount_is(
    tmp_path: Path, host: int, volume: int, mount: int
) -> None:
    def readonly(host: int, volume: int, mount: int) -> bool:
        (bind,) = config(
            tmp_path,
            {"mounts": (VolumeMount(volume="v", destination="/v", read_only=bool(mount)),)},
            {"s": HostVolume(path="/srv", read_only=bool(host))},
            volumes={"v": Volume(source="s", read_only=bool(volume))},
        ).mounts
        return bind.readonly

    assert readonly(host, volume, mount)
    assert not readonly(0, 0, 0)


def test_each_allocation_may_have_a_volume_of_its_own(tmp_path: Path) -> None:
    mount = VolumeMount(
        volume="v", destination="/v/${NOMAD_TASK_NAME}", propagation_mode="host-to-task"
    )
    planned = allocs(
        tmp_path,
        {"mounts": (mount,)},
        {"s[0]": HostVolume(path="/a"), "s[1]": HostVolume(path="/b")},
        volumes={"v": Volume(source="s", per_alloc=True)},
        count=2,
    )
    assert [alloc.tasks[0].config.mounts for alloc in planned] == [
        (
            MountConfig(
                task_path="/v/t", host_path=path, readonly=False, propagation_mode="host-to-task"
            ),
        )
        for path in ("/a", "/b")
    ]


def test_a_volume_that_the_machine_has_not_is_named(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match='volume "v": this machine has no host volume "s"; known'):
        allocs(tmp_path, None, {"x": DATA}, volumes={"v": Volume(source="s")})


def test_the_driver_hears_all_of_it_over_the_wire(tmp_path: Path) -> None:
    network = GroupNetwork(
        mode="bridge",
        ports=(Port(label="http", to=8080), Port(label="same")),
        dns=DnsConfig(servers=("10.0.0.1",), searches=("lan",), options=("ndots:1",)),
    )
    sent = config(
        tmp_path,
        {"mounts": (VolumeMount(volume="v", destination="/v"),)},
        {"s": DATA},
        network=network,
        volumes={"v": Volume(source="s")},
    )
    heard = read_task_config(task_message(sent, b""))
    assert heard.resources.ports == sent.resources.ports
    assert heard.network == sent.network
    assert heard.dns == sent.dns
    assert heard.mounts == sent.mounts


def test_a_dns_block_that_is_empty_is_one_on_the_wire(tmp_path: Path) -> None:
    sent = config(tmp_path, network=GroupNetwork(dns=DnsConfig()))
    assert read_task_config(task_message(sent, b"")).dns == DnsConfig()


@pytest.mark.parametrize(
    ("alloc", "to", "line"),
    [
        ("", 8080, "port http: 127.0.0.1:25000 -> 8080"),
        ("", 0, "port http: 127.0.0.1:25000"),
        ("g[1]", 80, "g[1]: port http: 127.0.0.1:25000 -> 80"),
    ],
)
def test_a_line_says_where_a_port_is(alloc: str, to: int, line: str) -> None:
    port = PortMapping(label="http", value=25000, to=to, host_ip="127.0.0.1")
    assert port_text(alloc, port) == line


# --- the machine's side


def options(*words: str, config_file: Path | None = None) -> HostOptions:
    parser = argparse.ArgumentParser()
    command_line.add_host_arguments(parser)
    arguments = parser.parse_args(words)
    arguments.config_file = config_file
    return host_arguments.read(arguments)


def test_host_volumes_of_the_command_line_win_over_the_agents(tmp_path: Path) -> None:
    agent = tmp_path / "agent.hcl"
    agent.write_text(
        f'client {{\n host_volume "a" {{\n path = "{tmp_path}"\n read_only = true\n}}\n'
        f' host_volume "b" {{\n path = "{tmp_path}"\n}}\n}}\n'
    )
    host = options("--host-volume", "b=/proc:ro", "--host-volume", "c=/", config_file=agent)
    assert host.volumes == {
        "a": HostVolume(path=str(tmp_path), read_only=True),
        "b": HostVolume(path="/proc", read_only=True),
        "c": HostVolume(path="/"),
    }


def test_a_colon_in_a_volumes_path_is_part_of_it(tmp_path: Path) -> None:
    odd = tmp_path / "a:b"
    odd.mkdir()
    assert options("--host-volume", f"v={odd}").volumes == {"v": HostVolume(path=str(odd))}
    assert options("--host-volume", f"v={odd}:rw").volumes == {"v": HostVolume(path=str(odd))}


def test_plugins_are_looked_for_where_it_is_said() -> None:
    assert options().cni_directories == ("/opt/cni/bin", "/usr/lib/cni")
    assert options("--cni-path", "/a:/b").cni_directories == ("/a", "/b")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--host-volume", "v"), "--host-volume v: is not NAME=PATH"),
        (("--host-volume", "v=relative"), "host volume v: relative does not exist"),
        (("--host-volume", "v=/nonexistent:ro"), "host volume v: /nonexistent does not exist"),
        (("--host-volume", "v=:ro"), "host volume v: an empty path does not exist"),
        (("--host-ip", "0.0.0.0"), "not an IPv4 address"),  # noqa: S104
        (("--host-ip", "::1"), "--host-ip ::1: not an IPv4 address"),
        (("--host-ip", "localhost"), "--host-ip localhost: not an IPv4 address"),
    ],
)
def test_a_wrong_option_is_named(words: tuple[str, ...], problem: str) -> None:
    with pytest.raises(DriverError) as error:
        options(*words)
    assert problem in str(error.value)


def test_a_task_has_the_share_of_the_node_that_an_agent_works_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_topology, "measure", lambda: NodeSpeed(total_mhz=8000, cores=4))
    assert config(tmp_path, {"cpu_mhz": 2000}).resources.percent_ticks == 0.25
    assert config(tmp_path, {"cpu_mhz": 20000}).resources.percent_ticks == 1.0
    # Where the kernel tells no frequency a Nomad client takes 1000 MHz for each core.
    monkeypatch.setattr(cpu_topology, "measure", lambda: NodeSpeed(total_mhz=0, cores=4))
    assert config(tmp_path, {"cpu_mhz": 1000}).resources.percent_ticks == 0.25
