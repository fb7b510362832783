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


def limits(given: Resources, options: TaskOptions, settings: DriverSettings) -> resources.Limits:
    """The limits of a task. memory_max of -1 is Nomad's "reserve only": no hard limit."""
    quota = 0
    if options.cpu_hard_limit:
        quota = resources.quota_us(
            given.percent_ticks, max(1, settings.cores), options.cpu_cfs_period_us
        )
    return resources.Limits(
        memory_bytes=given.memory_limit_bytes if given.memory_max_mb >= 0 else 0,
        memory_reservation_bytes=given.memory_mb * 1024 * 1024 if given.memory_max_mb else 0,
        cpu_shares=resources.shares(given.cpu_shares, settings.total_mhz)
        if given.cpu_shares > 0
        else 0,
        cpu_quota_us=quota,
        cpu_period_us=options.cpu_cfs_period_us,
        cpus=given.cpuset_cpus,
        pids=max(0, options.pids_limit),
    )


def cgroup_path(given: Resources, container: str, namespace: str, *, cgroup_v2: bool) -> str:
    """The container's cgroup, from the root of cgroups.

    On v2, Nomad 1.7 and later make the task's cgroup below `share.slice` or `reserve.slice` and
    keep the cores of these up to date; the container goes into the very one.
    """
    if cgroup_v2 and _names_a_cgroup(given):
        return given.cpuset_cgroup.removeprefix(_CGROUPS.rstrip("/"))
    return identifiers.cgroup_path(container, namespace)


def _names_a_cgroup(given: Resources) -> bool:
    path = given.cpuset_cgroup
    return path.startswith(_CGROUPS) and posixpath.normpath(path) == path


async def give_back_cgroup(given: Resources, *, cgroup_v2: bool) -> None:
    """Has the cgroup of v2 exist that Nomad made for a task and the runtime removed with it.

    Nomad 1.3 to 1.6 make it once for an allocation, wait for it before each start of the task in
    there, and remove it in the end: without it a task that is restarted stays pending for good
    (hashicorp/nomad pull request 12875). Later ones leave it to the driver.
    """
    if cgroup_v2 and _names_a_cgroup(given):
        directory = Path(given.cpuset_cgroup)
        if directory.parent.name not in _OF_NOMAD_1_7:
            with contextlib.suppress(OSError):  # Nomad has removed what it lay in
                await asyncio.to_thread(directory.mkdir, exist_ok=True)


def join_cpuset(given: Resources, pid: int, *, cgroup_v2: bool) -> None:
    """Puts a task's first process into the cpuset that Nomad keeps for it on cgroup v1.

    Nomad changes the cores of that cgroup as other tasks reserve theirs; a copy of today's list
    would grow old. Blocks for a moment: a file write.

    Raises:
        DriverError: the cgroup that Nomad named cannot be joined.
    """
    path = given.cpuset_cgroup
    if cgroup_v2 or not path.startswith(_CPUSETS) or posixpath.normpath(path) != path:
        return
    directory = Path(path)
    try:
        # Nomad 1.7 and later leave the cores of a reserved cgroup to the driver.
        if given.cpuset_cpus and "/reserve/" in path:
            (directory / "cpuset.cpus").write_text(given.cpuset_cpus)
        (directory / "cgroup.procs").write_text(str(pid))
    except FileNotFoundError:
        return  # Nomad manages no cores on this node
    except OSError as error:
        raise DriverError(
            f"the task cannot have the cores that Nomad reserved: {error.strerror}",
            details=str(path),
            resolution="see the agent's log for its cpuset manager",
            code=Code.INTERNAL,
        ) from error
