"""Modes of namespaces: the words of Docker and Podman, and the errors for other words."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from actors.model.settings import TaskOptions
from plugin import options
from proto.errors import DriverError


def read(**values: Any) -> TaskOptions:
    return options.task_options(msgpack.packb({"image": "x", **values}))


@pytest.mark.parametrize(
    ("option", "written", "expected"),
    [
        ("pid_mode", "", ""),
        ("pid_mode", "private", ""),
        ("pid_mode", "HOST", "host"),
        ("pid_mode", "task:Web", "task:Web"),
        ("ipc_mode", "shareable", ""),
        ("ipc_mode", "private", ""),
        ("ipc_mode", "task:a:b", "task:a:b"),
        ("network_mode", "default", ""),
        ("network_mode", "bridge", "bridge"),
        ("network_mode", "None", "none"),
        ("network_mode", "task:web", "task:web"),
        ("network_mode", "container:web-1", "container:web-1"),
        ("network_mode", "ns:/var/run/netns/vpn", "ns:/var/run/netns/vpn"),
    ],
)
def test_modes_are_read_as_docker_and_podman_write_them(
    option: str, written: str, expected: str
) -> None:
    assert getattr(read(**{option: written}), option) == expected


@pytest.mark.parametrize(
    ("option", "written", "words"),
    [
        ("pid_mode", "shareable", 'Write pid_mode = "task:NAME" to share the namespace'),
        ("pid_mode", "task:", "Invalid pid_mode"),
        ("pid_mode", "ns:/proc/1/ns/pid", "Invalid pid_mode"),
        ("ipc_mode", "container:x", "Invalid ipc_mode. Set ipc_mode=host"),
        ("ipc_mode", "none", "Invalid ipc_mode"),
        ("network_mode", "my-net", 'write network { mode = "cni/NAME" } into the group'),
        ("network_mode", "ns:relative", "is not supported"),
        ("network_mode", "container:", "is not supported"),
        ("network_mode", "ns:/var/run/netns/../../proc/1/ns/net", "is not supported"),
        ("network_mode", "ns://proc/1/ns/net", "is not supported"),
        ("network_mode", "/proc/1/ns/net", "is not supported"),
        ("network_mode", "slirp4netns:port", "is not supported"),
        ("userns_mode", "keep-id", "tasks run in the node's user namespace"),
        ("userns", "auto", "tasks run in the node's user namespace"),
    ],
)
def test_other_modes_are_refused_with_advice(option: str, written: str, words: str) -> None:
    with pytest.raises(DriverError) as refused:
        read(**{option: written})
    assert f"{option}: " in str(refused.value)
    assert words in str(refused.value)


def test_the_host_in_network_mode_is_the_hosts_network() -> None:
    assert read(network_mode="host", host_network=False).host_network
    assert not read(network_mode="none").host_network
    assert read(userns_mode="host", userns="host").warnings == ()
