"""Refusals of jobs on a node without root."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from actors.checks import rootless
from actors.lifecycle import plan
from actors.model.node import Node, this_node
from actors.model.nomad import Resources, TaskConfig
from actors.model.settings import DeviceOption, DriverSettings, TaskOptions
from containerd.daemon_process import DaemonProcess
from containerd.runtimes import Runtime
from proto.errors import Code, DriverError

_RUNC = Runtime(name="io.containerd.runc.v2")
_TASK = TaskConfig(
    id="a/t/1",
    name="t",
    alloc_id="a",
    resources=Resources(cpu_shares=100, memory_mb=64, memory_limit_bytes=64 << 20),
)


def node(*, cgroups: bool = False) -> Node:
    return dataclasses.replace(this_node(DriverSettings()), rootless=True, cgroups=cgroups)


def refused(made: Node, options: Mapping[str, Any], runtime: Runtime = _RUNC) -> str:
    """Returns the text of the refusal."""
    with pytest.raises(DriverError) as caught:
        rootless.check(made, TaskOptions(image="i", **options), runtime)
    assert caught.value.code is Code.UNSUPPORTED
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cpu_hard_limit", True),
        ("pids_limit", 1),
        ("memory_swappiness", 0),
        ("cpuset_mems", "0"),
        ("blkio_weight", 10),
        ("cgroupns", "host"),
    ],
)
def test_an_option_that_needs_a_cgroup_is_refused_only_without_cgroups(
    name: str, value: Any
) -> None:
    assert f"{name} is not possible without root: " in refused(node(), {name: value})
    rootless.check(node(cgroups=True), TaskOptions(image="i", **{name: value}), _RUNC)


def test_gvisor_needs_cgroups() -> None:
    runsc = Runtime(name="io.containerd.runc.v2", binary_name="runsc")
    assert "the runtime runsc is not possible" in refused(node(), {}, runsc)
    rootless.check(node(cgroups=True), TaskOptions(image="i"), runsc)


def test_the_machines_disks_domain_and_devices_are_the_machines() -> None:
    assert "storage_opt is not possible" in refused(node(cgroups=True), {"storage_bytes": 1})
    assert "sysctl: kernel.domainname is not" in refused(
        node(), {"sysctl": {"kernel.domainname": "x"}}
    )
    moved = DeviceOption(host_path="/dev/zero", container_path="/dev/z")
    assert "devices: '/dev/zero' at another path is not" in refused(node(), {"devices": (moved,)})
    same = DeviceOption(host_path="/dev/zero", container_path="/dev/zero")
    rootless.check(node(), TaskOptions(image="i", devices=(same,)), _RUNC)


def test_a_node_with_root_refuses_nothing() -> None:
    options = TaskOptions(image="i", pids_limit=1, pid_mode="host", storage_bytes=1)
    made = dataclasses.replace(node(), rootless=False)
    rootless.check(made, options, _RUNC)
    assert (
        rootless.spec_limits(made, DaemonProcess(open_files=(1, 2), raises_limits=True), options)
        is None
    )


def test_a_namespace_of_this_user_namespace_may_be_shared() -> None:
    # The first user namespace owns all others, so no namespace is foreign here.
    if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
        pytest.skip("this machine is in a user namespace")
    options = TaskOptions(image="i", pid_mode="host", ipc_mode="host", host_network=True)
    rootless.check(node(), options, _RUNC)
    daemon = DaemonProcess(open_files=(1, 2), raises_limits=False, oom_score_adj=7)
    limits = rootless.spec_limits(node(), daemon, options)
    assert limits is not None
    assert (limits.foreign_network, limits.least_oom_score) == (False, 7)


def test_a_limit_above_containerds_own_is_refused() -> None:
    daemon = DaemonProcess(
        open_files=(10, 20), raises_limits=False, hard_limits={"nofile": 20, "core": 5}
    )
    rootless.check_limits({"nofile": (1, 20), "memlock": (9, 9)}, daemon)
    with pytest.raises(
        DriverError, match="ulimit: core: 6 is more than 5, the hard limit of"
    ) as no:
        rootless.check_limits({"nofile": (1, 20), "core": (1, 6)}, daemon)
    assert no.value.code is Code.INVALID
    rootless.check_limits({"core": (1, 6)}, dataclasses.replace(daemon, raises_limits=True))


def test_a_task_without_cgroups_is_planned_without_limits_and_says_so() -> None:
    options = TaskOptions(image="busybox", command="true")
    with_cgroups = plan.make(node(cgroups=True), _TASK, options)
    assert (with_cgroups.limits.memory_bytes, with_cgroups.warnings) == (64 << 20, ())
    without = plan.make(node(), _TASK, options)
    assert (without.limits.memory_bytes, without.limits.cpu_shares) == (0, 0)
    assert without.warnings == (rootless.NOT_LIMITED,)
