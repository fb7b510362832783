"""Limits of a containerd that runs without root: refusals of jobs, before anything is created.

The kernel gives root of a user namespace neither cgroups of the machine, nor devices, nor limits
above the hard limits of its user. A job that asks for such a thing is refused by name. A limit that
every task has, such as the memory of Nomad's `resources`, is not enforced, and an event says so.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from containerd.spec.rootless import Rootless
from proto.errors import Code, DriverError, start_refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from actors.model.node import Node
    from actors.model.settings import DeviceOption, TaskOptions
    from containerd.daemon_process import DaemonProcess
    from containerd.runtimes import Runtime

_NO_CGROUPS = "the rootless containerd of this node may create no cgroups"
NOT_LIMITED = f"resources: the memory and the CPU time of the task are not limited: {_NO_CGROUPS}"
_NS_GET_USERNS = 0xB701
_GVISOR = "runsc"
_DOMAIN = "kernel.domainname"
_PAGE = "see docs/rootless.md"


def check(node: Node, options: TaskOptions, runtime: Runtime) -> None:
    """Checks a job against the limits of a node without root. Blocks for a moment.

    Args:
        node: the node.
        options: the job's options.
        runtime: the task's runtime.

    Raises:
        DriverError: code UNSUPPORTED; the text names the option.
    """
    if not node.rootless:
        return
    for option in () if node.cgroups else _of_cgroups(options):
        raise _refused(
            option,
            _NO_CGROUPS,
            "remove the option, or let the operator delegate cgroups to containerd",
        )
    if runtime.binary == _GVISOR and not node.cgroups:
        raise _refused("the runtime runsc", f"runsc needs a cgroup, and {_NO_CGROUPS}", "use runc")
    if _DOMAIN in options.sysctl:
        raise _refused(
            f"sysctl: {_DOMAIN}", "the kernel lets only the machine's root set it", "remove it"
        )
    for kind, mode in (("pid", options.pid_mode), ("ipc", options.ipc_mode)):
        if mode == "host" and not _owns(kind):
            raise _refused(
                f'{kind}_mode = "host"',
                "the namespace of the machine belongs to the machine's root",
                f"remove {kind}_mode, or share the namespace of another task",
            )
    if options.storage_bytes:
        raise _refused("storage_opt", "only the machine's root may limit files", "remove it")
    for device in options.devices:
        _check_device(device)


def check_limits(limits: Mapping[str, tuple[int, int]], daemon: DaemonProcess) -> None:
    """Checks the limits of a task's process against those that containerd's process may give.

    Raises:
        DriverError: code INVALID; containerd's own hard limit is lower.
    """
    if daemon.raises_limits:
        return
    for name, (_, wanted) in limits.items():
        most = daemon.hard_limits.get(name, wanted)
        if wanted > most:
            raise start_refused(
                f"ulimit: {name}: {wanted} is more than {most}, the hard limit of containerd, which"
                " may not raise limits",
                f"write at most {most}, or the operator raises the limit of containerd's service",
            )


def spec_limits(node: Node, daemon: DaemonProcess, options: TaskOptions) -> Rootless | None:
    """Returns the limits for a task's OCI spec; None on a node with root."""
    if not node.rootless:
        return None
    return Rootless(
        cgroups=node.cgroups,
        least_oom_score=daemon.oom_score_adj,
        foreign_network=options.host_network and not _owns("net"),
    )


def _owns(kind: str) -> bool:
    """Returns whether the node's namespace of a kind belongs to this user namespace."""
    with Path(f"/proc/self/ns/{kind}").open("rb") as namespace:
        try:
            owner = fcntl.ioctl(namespace, _NS_GET_USERNS)
        except PermissionError:  # the machine's, or another one above
            return False
    try:
        return os.path.samestat(os.fstat(owner), Path("/proc/self/ns/user").stat())
    finally:
        os.close(owner)


def _of_cgroups(options: TaskOptions) -> Iterator[str]:
    """Yields the names of the job's own options that need a cgroup."""
    wanted = {
        "cpu_hard_limit": options.cpu_hard_limit,
        "pids_limit": options.pids_limit > 0,
        "memory_hard_limit": options.memory_hard_limit_mb,
        "memory_reservation": options.memory_reservation_bytes,
        "memory_swap": options.memory_swap_bytes,
        "memory_swappiness": options.memory_swappiness is not None,
        "cpuset_cpus": options.cpuset_cpus,
        "cpuset_mems": options.cpuset_mems,
        "blkio_weight": options.blkio_weight,
        "device_*_bps, device_*_iops": options.device_rates,
        "cgroupns": options.cgroupns,
    }
    yield from (name for name, value in wanted.items() if value)


def _check_device(device: DeviceOption) -> None:
    path = device.host_path
    if device.container_path not in {"", path}:
        raise _refused(
            f"devices: {path[:128]!r} at another path",
            "without root a runtime binds a device at its own path",
            "remove container_path",
        )
    try:
        of_device = not stat.S_ISDIR(os.stat(path).st_mode)  # noqa: PTH116 - follows links
    except OSError:
        return  # refused by the look at the devices
    words = device.cgroup_permissions or "rw"
    wanted = (os.R_OK if "r" in words else 0) | (os.W_OK if "w" in words else 0)
    if of_device and not os.access(path, wanted):
        raise _refused(
            f"devices: {path[:128]!r}",
            "the user of the rootless containerd may not open the device",
            "give the user access to the device by a group or a udev rule",
        )


def _refused(option: str, reason: str, advice: str) -> DriverError:
    return start_refused(
        f"{option} is not possible without root: {reason}",
        f"{advice}; {_PAGE}",
        code=Code.UNSUPPORTED,
    )
