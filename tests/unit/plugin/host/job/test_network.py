"""The network and the volumes of a job file, in HCL and in Nomad's JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors.model.nomad import DnsConfig
from plugin.host.job import jobfile
from plugin.host.job.jobfile import JobGroup
from plugin.host.job.network import GroupNetwork, Port
from plugin.host.job.volumes import Volume, VolumeMount
from proto.errors import DriverError


def hcl(group: str, task: str = "") -> JobGroup:
    text = f'job "j" {{\n group "g" {{\n{group}\n task "t" {{\n driver = "d"\n{task}\n}}\n}}\n}}\n'
    return jobfile.parse("j.nomad", text, {}).groups[0]


def from_json(group: dict[str, Any], **task: Any) -> JobGroup:
    tasks = [{"Name": "t", "Driver": "d", **task}]
    text = json.dumps({"ID": "j", "TaskGroups": [{"Name": "g", "Tasks": tasks, **group}]})
    return jobfile.parse("j.json", text, {}).groups[0]


NETWORK = GroupNetwork(
    mode="bridge",
    ports=(
        Port(label="fixed", static=80, to=8080),
        Port(label="any"),
        Port(label="inner", to=9090),
        Port(label="same", to=-1),
    ),
    dns=DnsConfig(servers=("10.0.0.1",), searches=("lan",), options=("ndots:2",)),
)
VOLUMES = {
    "data": Volume(source="s1"),
    "rest": Volume(source="s2", read_only=True, per_alloc=True),
}
MOUNTS = (
    VolumeMount(volume="data", destination="/data"),
    VolumeMount(
        volume="rest", destination="/rest", read_only=True, propagation_mode="host-to-task"
    ),
)


def test_a_network_is_read_with_its_ports_and_its_dns() -> None:
    group = hcl(
        """
        network {
          mode = "bridge"
          port "fixed" {
            static = 80
            to     = 8080
          }
          port "any" {}
          port "inner" { to = 9090 }
          port "same" { to = -1 }
          dns {
            servers  = ["10.0.0.1"]
            searches = ["lan"]
            options  = ["ndots:2"]
          }
        }
        """
    )
    assert group.network == NETWORK


def test_nomads_json_gives_the_same_network() -> None:
    group = from_json(
        {
            "Networks": [
                {
                    "Mode": "bridge",
                    "Device": "",
                    "Hostname": "",
                    "DNS": {
                        "Servers": ["10.0.0.1"],
                        "Searches": ["lan"],
                        "Options": ["ndots:2"],
                    },
                    "ReservedPorts": [
                        {"Label": "fixed", "Value": 80, "To": 8080, "HostNetwork": "default"}
                    ],
                    "DynamicPorts": [
                        {"Label": "any", "Value": 0, "To": 0, "HostNetwork": "default"},
                        {"Label": "inner", "To": 9090},
                        {"Label": "same", "To": -1},
                    ],
                }
            ]
        }
    )
    assert group.network == NETWORK


def test_without_a_network_block_a_group_has_the_hosts() -> None:
    assert hcl("").network == GroupNetwork() == from_json({"Networks": None}).network


def test_volumes_and_their_mounts_are_read() -> None:
    group = hcl(
        """
        volume "data" {
          type   = "host"
          source = "s1"
        }
        volume "rest" {
          type      = "host"
          source    = "s2"
          read_only = true
          per_alloc = true
        }
        """,
        """
        volume_mount {
          volume      = "data"
          destination = "/data"
        }
        volume_mount {
          volume           = "rest"
          destination      = "/rest"
          read_only        = true
          propagation_mode = "host-to-task"
        }
        """,
    )
    assert group.volumes == VOLUMES
    assert group.tasks[0].mounts == MOUNTS


def test_nomads_json_gives_the_same_volumes() -> None:
    group = from_json(
        {
            "Volumes": {
                "data": {
                    "Name": "data",
                    "Type": "host",
                    "Source": "s1",
                    "ReadOnly": False,
                    "AccessMode": "",
                    "MountOptions": None,
                    "PerAlloc": False,
                },
                "rest": {"Type": "host", "Source": "s2", "ReadOnly": True, "PerAlloc": True},
            }
        },
        VolumeMounts=[
            {
                "Volume": "data",
                "Destination": "/data",
                "ReadOnly": False,
                "PropagationMode": "private",
                "SELinuxLabel": "",
            },
            {
                "Volume": "rest",
                "Destination": "/rest",
                "ReadOnly": True,
                "PropagationMode": "host-to-task",
            },
        ],
    )
    assert group.volumes == VOLUMES
    assert group.tasks[0].mounts == MOUNTS


@pytest.mark.parametrize(
    ("group", "task", "words"),
    [
        (
            'network { mode = "cni/x" }',
            "",
            'mode "cni/x" needs a Nomad agent; allowed here: host, b',
        ),
        ("network {}\nnetwork {}", "", 'group "g": network: appears more than once'),
        (
            'network { hostname = "x" }',
            "",
            "hostname is for drivers that create networks; set host",
        ),
        ('network {\n port "a" { too = 1 }\n}', "", 'port "a": no such key "too", did you mean'),
        (
            'network {\n port "a" { static = 65536 }\n}',
            "",
            'port "a": static 65536 is not a whole number from 1 to 65535',
        ),
        ('network {\n port "a" { static = 0 }\n}', "", 'port "a": static 0 is not a whole number'),
        (
            'network {\n port "a" { to = -2 }\n}',
            "",
            'port "a": to -2 is not a whole number from -1 to 65535',
        ),
        ('network {\n port "a" { to = "x" }\n}', "", "port \"a\": to 'x' is not a whole number"),
        ('network {\n port "a" { host_network = "lan" }\n}', "", "host_network needs a Nomad"),
        ('network {\n port "a" {}\n port "a" {}\n}', "", 'port "a" appears more than once'),
        ('network {\n mode = "none"\n port "a" {}\n}', "", 'mode "none" has no ports'),
        ('network {\n dns { servers = "x" }\n}', "", "dns: servers is not a list of strings"),
        ('network {\n dns { server = ["x"] }\n}', "", 'dns: no such key "server", did you mean'),
        ('volume "v" { type = "csi" }', "", 'volume "v": type "csi" needs a Nomad agent'),
        ('volume "v" { type = "host" }', "", 'volume "v": source is missing'),
        ('volume "v" { read_only = 3 }', "", "read_only 3 is neither true nor false"),
        ("", 'volume_mount { volume = "v" }', '"v": the group has no such volume; known: none'),
        (
            'volume "w" { source = "s" }',
            'volume_mount { volume = "v" }',
            "no such volume; known: w",
        ),
        ("", 'volume_mount { volume = "v" }', 'volume_mount "v": destination is missing'),
        ("", 'volume_mount { propagation_mode = "x" }', "'x' is none of private, host-to-task, "),
    ],
)
def test_a_mistake_in_them_is_named(group: str, task: str, words: str) -> None:
    with pytest.raises(DriverError) as error:
        hcl(group, task)
    assert words in str(error.value)


def test_a_json_jobs_hostname_and_host_network_are_refused_too() -> None:
    network = {"Hostname": "h", "DynamicPorts": [{"Label": "a", "HostNetwork": "lan"}]}
    with pytest.raises(DriverError) as error:
        from_json({"Networks": [network]})
    assert "hostname is for drivers" in str(error.value)
    assert "host_network needs a Nomad agent" in str(error.value)
