"""Limits of a task, and its cgroup: Nomad's resources and the job's options in the kernel's terms.

Nomad 1.3 to 1.6 wait for a task's cgroup of version 2 before they start the task again. The
runtime removes the cgroup with the container, so a removal creates the cgroup again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import posixpath
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from actors.blocking import file_servers
from actors.model import identifiers
from actors.model.ownership import LABEL_QUOTA
from containerd.rootfs import quota
from containerd.spec import resources
from proto.errors import Code, DriverError, start_refused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actors.lifecycle.undo import Undo
    from actors.model.node import Node
    from actors.model.nomad import Resources
    from actors.model.settings import DriverSettings, TaskOptions
    from containerd.api.records import Mount

_MIB = 1024 * 1024
_MOST_CPUS = 1 << 17  # more than any kernel has
_MOST_OPEN_FILES = Path("/proc/sys/fs/nr_open")
_CGROUPS = "/sys/fs/cgroup/"
_CPUSETS = "/sys/fs/cgroup/cpuset/"
_OF_NOMAD_1_7 = {"share.slice", "reserve.slice"}


def limits(
    assigned: Resources, options: TaskOptions, settings: DriverSettings, *, usual_pids: int = 0
) -> resources.Limits:
    """Computes the limits of a task.

    Args:
        assigned: Nomad's resources of the task. A memory_max of -1 means "reserve only" in Nomad:
            the task has no hard limit.
        options: the job's options.
        settings: have the node's MHz and cores.
        usual_pids: most processes of a task without a limit of its own; 0 is no limit.

    Raises:
        DriverError: code INVALID; limits of the memory contradict each other.
    """
    hard, soft = _memory(assigned, options)
    quota = 0
    if options.cpu_hard_limit:
        quota = resources.quota_us(
            assigned.percent_ticks, max(1, settings.cores), options.cpu_cfs_period_us
        )
    return resources.Limits(
        memory_bytes=hard,
        memory_reservation_bytes=soft,
        memory_swap_bytes=_swap(hard, options.memory_swap_bytes),
        memory_swappiness=options.memory_swappiness,
        cpu_shares=resources.shares(assigned.cpu_shares, settings.total_mhz)
        if assigned.cpu_shares > 0
        else 0,
        cpu_quota_us=quota,
        cpu_period_us=options.cpu_cfs_period_us,
        cpus=options.cpuset_cpus or assigned.cpuset_cpus,
        mems=options.cpuset_mems,
        io_weight=options.blkio_weight,
        pids=max(0, options.pids_limit) or usual_pids,
    )


def _memory(assigned: Resources, options: TaskOptions) -> tuple[int, int]:
    """Returns the limit and the reservation of the memory in bytes; 0 is none.

    memory_hard_limit makes `memory` the reservation, as memory_max does. The greater of both is the
    limit. A memory_max of -1 removes the limit.
    """
    memory = assigned.memory_mb * _MIB
    wanted = options.memory_hard_limit_mb * _MIB
    if 0 < wanted < memory:
        raise start_refused(
            f"memory_hard_limit: {options.memory_hard_limit_mb} MB is less than the"
            f" {assigned.memory_mb} MB of memory, which the task may use in any case",
            "raise memory_hard_limit, or lower resources { memory }",
        )
    hard = max(assigned.memory_limit_bytes, wanted) if assigned.memory_max_mb >= 0 else 0
    soft = memory if assigned.memory_max_mb or wanted else 0
    if options.memory_reservation_bytes:
        if hard and options.memory_reservation_bytes > hard:
            raise start_refused(
                f"memory_reservation: {options.memory_reservation_bytes} bytes are more than the"
                f" limit of {hard} bytes",
                "lower memory_reservation, or raise resources { memory }",
            )
        soft = min(options.memory_reservation_bytes, memory or options.memory_reservation_bytes)
    return hard, soft


def _swap(hard: int, together: int) -> int:
    """Checks memory_swap, which counts memory and swap together, against the limit in bytes."""
    if together and not hard:
        raise start_refused(
            "memory_swap: the task has no limit of memory, so the kernel takes no limit of swap",
            "remove memory_swap, or memory_max = -1",
        )
    if 0 < together < hard:
        raise start_refused(
            f"memory_swap: {together} bytes are less than the limit of {hard} bytes: memory_swap"
            " counts memory and swap together",
            "raise memory_swap; the limit itself means no swap",
        )
    return together


def check_cpuset(assigned: Resources, options: TaskOptions, *, cgroup_v2: bool) -> None:
    """Checks the processors and NUMA nodes of a job's own choice against the granted ones.

    Blocks for a moment: files of the kernel are read.

    Args:
        assigned: Nomad's resources of the task.
        options: the job's options.
        cgroup_v2: True on a node with the unified hierarchy.

    Raises:
        DriverError: code INVALID; the choice is outside, or Nomad itself changes the task's cores.
    """
    if options.cpuset_cpus or options.cpuset_mems:
        _refuse_managed_cores(assigned, cgroup_v2=cgroup_v2)
    if options.cpuset_cpus:
        granted = assigned.cpuset_cpus or _effective(assigned, "cpus", cgroup_v2=cgroup_v2)
        _refuse_outside("cpuset_cpus", options.cpuset_cpus, granted, "processors")
    if options.cpuset_mems:
        granted = _effective(assigned, "mems", cgroup_v2=cgroup_v2)
        _refuse_outside("cpuset_mems", options.cpuset_mems, granted, "NUMA nodes")


def _refuse_managed_cores(assigned: Resources, *, cgroup_v2: bool) -> None:
    """Refuses a choice of cores that Nomad would overwrite: on v1, and with Nomad before 1.7."""
    if not assigned.cpuset_cgroup or not (cgroup_v2 or assigned.cpuset_cgroup.startswith(_CPUSETS)):
        return
    if not cgroup_v2 or Path(assigned.cpuset_cgroup).parent.name not in _OF_NOMAD_1_7:
        raise start_refused(
            "cpuset_cpus, cpuset_mems: this Nomad chooses the processors of a running task itself",
            "use resources { cores = … }; or cgroup v2 with Nomad 1.7 or newer",
        )


def _effective(assigned: Resources, kind: str, *, cgroup_v2: bool) -> str:
    """Returns the list of the nearest cgroup of Nomad, else of the machine; empty if unknown."""
    places = []
    if cgroup_v2 and _names_a_cgroup(assigned):
        here = Path(assigned.cpuset_cgroup)
        places = [place / f"cpuset.{kind}.effective" for place in (here, *here.parents[:-3])]
    online = "cpu/online" if kind == "cpus" else "node/online"
    for path in (*places, Path("/sys/devices/system") / online):
        with contextlib.suppress(OSError):
            if text := path.read_text().strip():
                return text
    return ""


def _refuse_outside(option: str, wanted: str, granted: str, what: str) -> None:
    outside = _numbers(wanted) - _numbers(granted)
    if outside and granted:
        raise start_refused(
            f"{option}: the {what} {', '.join(map(str, sorted(outside)))[:128]} are not granted to"
            f" the task: {granted[:128]}",
            f"choose among {granted[:128]}, or reserve cores with resources {{ cores = … }}",
        )


def _numbers(text: str) -> set[int]:
    """Returns the numbers of a list such as `0-2,5`."""
    numbers: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        numbers.update(range(int(first), min(int(last or first), _MOST_CPUS) + 1))
    return numbers


def check_open_files(options: TaskOptions) -> None:
    """Checks a job's own limit of open files. Blocks for a moment: a file of the kernel is read.

    Raises:
        DriverError: code INVALID; the kernel refuses the limit, even to root.
    """
    option = "ulimit: nofile" if "nofile" in options.ulimits else "file_limit"
    _, wanted = options.ulimits.get("nofile", (0, options.file_limit))
    if wanted and wanted > (most := int(_MOST_OPEN_FILES.read_text())):
        raise start_refused(
            f"{option}: {wanted} is more than {most}, the kernel's limit",
            f"write at most {most}, or the operator raises the kernel parameter fs.nr_open",
        )


def disk_rates(options: TaskOptions) -> tuple[resources.Rate, ...]:
    """Returns the limits of disks by the disks' numbers. Blocks: the disks are looked up.

    Raises:
        DriverError: code INVALID; a path is no disk of this node.
    """
    rates: list[resources.Rate] = []
    for kind, path, limit in options.device_rates:
        file_servers.visit(path, "device_*_bps, device_*_iops")
        try:
            found = Path(path).stat()
        except OSError as error:
            raise start_refused(
                f"device limits: {path[:128]!r}: {error.strerror}", "name a disk of this node"
            ) from error
        major, minor = os.major(found.st_rdev), os.minor(found.st_rdev)
        part = Path(f"/sys/dev/block/{major}:{minor}/partition")
        if not stat.S_ISBLK(found.st_mode) or part.exists():
            raise start_refused(
                f"device limits: {path[:128]!r} is not a whole disk, and the kernel limits disks",
                "name the disk, such as /dev/sda",
            )
        rates.append(resources.Rate(kind=kind, major=major, minor=minor, limit=limit))
    return tuple(rates)


async def check_disk(node: Node, options: TaskOptions) -> None:
    """Checks whether this node can limit the files that a task writes.

    Raises:
        DriverError: code UNSUPPORTED; the file system of the snapshots has no quota of projects.
    """
    if options.storage_bytes:
        name = options.snapshotter or node.settings.snapshotter
        root = await node.containerd.snapshotter_root(name or node.containerd.default_snapshotter)
        if root:
            await asyncio.to_thread(quota.check, root)


async def limit_disk(mounts: Sequence[Mount], size_bytes: int, undo: Undo) -> dict[str, str]:
    """Limits the files that a task writes, and registers the undo.

    Args:
        mounts: the mounts of the task's new snapshot.
        size_bytes: most bytes of the files; 0 is no limit.
        undo: the undo steps of the start.

    Returns:
        The label of the container by which `free_disk` finds the limit.

    Raises:
        DriverError: code UNSUPPORTED; the snapshot cannot be limited.
    """
    if not size_bytes:
        return {}
    made = await asyncio.to_thread(quota.limit, mounts, size_bytes)
    undo.later("quota", asyncio.to_thread, quota.release, made)
    return {LABEL_QUOTA: made}


async def free_disk(labels: Mapping[str, str]) -> None:
    """Removes the limit of a container's snapshot that is gone, if the container had a limit."""
    if made := labels.get(LABEL_QUOTA):
        await asyncio.to_thread(quota.release, made)


def cgroup_path(assigned: Resources, container: str, namespace: str, *, cgroup_v2: bool) -> str:
    """Returns the path of the container's cgroup below the root of the cgroup hierarchy.

    On v2, Nomad 1.7 and later create the task's cgroup below `share.slice` or `reserve.slice`, and
    keep the cores of the slices up to date. The container uses the cgroup that Nomad created.

    Args:
        assigned: Nomad's resources of the task, with the path of Nomad's cgroup.
        container: the container's id, the last part of the path where Nomad has no cgroup.
        namespace: containerd's namespace.
        cgroup_v2: True on a node with the unified hierarchy.
    """
    if cgroup_v2 and _names_a_cgroup(assigned):
        return assigned.cpuset_cgroup.removeprefix(_CGROUPS.rstrip("/"))
    return identifiers.cgroup_path(container, namespace)


def _names_a_cgroup(assigned: Resources) -> bool:
    path = assigned.cpuset_cgroup
    return path.startswith(_CGROUPS) and posixpath.normpath(path) == path


async def restore_cgroup(assigned: Resources, *, cgroup_v2: bool) -> None:
    """Creates Nomad's cgroup v2 of a task again, which the runtime removed with the container.

    Nomad 1.3 to 1.6 create the cgroup once for an allocation, wait for the cgroup before each start
    of the task, and remove the cgroup in the end. Without the cgroup, a task that is restarted
    stays pending for good (hashicorp/nomad pull request 12875). Later releases leave the cgroup to
    the driver.
    """
    if cgroup_v2 and _names_a_cgroup(assigned):
        directory = Path(assigned.cpuset_cgroup)
        if directory.parent.name not in _OF_NOMAD_1_7:
            with contextlib.suppress(OSError):  # Nomad has removed the parent
                await asyncio.to_thread(directory.mkdir, exist_ok=True)


def join_cpuset(assigned: Resources, pid: int, *, cgroup_v2: bool) -> None:
    """Moves a task's first process into Nomad's cpuset for the task, on cgroup v1.

    Nomad changes the cores of the cpuset when other tasks reserve cores, so a copy of the list
    would be outdated soon. Blocks for a moment: a file is written.

    Args:
        assigned: Nomad's resources of the task, with path and cores of the cpuset.
        pid: the task's first process.
        cgroup_v2: True does nothing; the runtime joins a cgroup of version 2 itself.

    Raises:
        DriverError: the process cannot join the cpuset that Nomad named.
    """
    path = assigned.cpuset_cgroup
    if cgroup_v2 or not path.startswith(_CPUSETS) or posixpath.normpath(path) != path:
        return
    directory = Path(path)
    try:
        # Nomad 1.7 and later leave the cores of a reserved cgroup to the driver.
        if assigned.cpuset_cpus and "/reserve/" in path:
            (directory / "cpuset.cpus").write_text(assigned.cpuset_cpus)
        (directory / "cgroup.procs").write_text(str(pid))
    except FileNotFoundError:
        return  # Nomad manages no cores on this node
    except OSError as error:
        raise DriverError(
            f"cannot give the task the cores that Nomad reserved: {error.strerror}",
            details=str(path),
            resolution="see the agent's log for its cpuset manager",
            code=Code.INTERNAL,
        ) from error
