"""Limits and cgroups of a task: Nomad's resources and the job's options in the kernel's terms.

Nomad 1.3 to 1.6 wait for a task's cgroup of version 2 before they start the task again. The
runtime removes the cgroup with the container, so a removal creates the cgroup again.
"""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
from pathlib import Path
from typing import TYPE_CHECKING

from actors.model import identifiers
from containerd.spec import resources
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from actors.model.nomad import Resources
    from actors.model.settings import DriverSettings, TaskOptions

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
    """
    quota = 0
    if options.cpu_hard_limit:
        quota = resources.quota_us(
            assigned.percent_ticks, max(1, settings.cores), options.cpu_cfs_period_us
        )
    return resources.Limits(
        memory_bytes=assigned.memory_limit_bytes if assigned.memory_max_mb >= 0 else 0,
        memory_reservation_bytes=assigned.memory_mb * 1024 * 1024 if assigned.memory_max_mb else 0,
        cpu_shares=resources.shares(assigned.cpu_shares, settings.total_mhz)
        if assigned.cpu_shares > 0
        else 0,
        cpu_quota_us=quota,
        cpu_period_us=options.cpu_cfs_period_us,
        cpus=assigned.cpuset_cpus,
        pids=max(0, options.pids_limit) or usual_pids,
    )


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
