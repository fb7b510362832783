"""Converts a task's limits of memory, CPU and processes to the OCI spec's form. Pure."""

from __future__ import annotations

from containerd.documents import Document
from proto.values import dataclass

# Range of cpu.shares in cgroup v1; runc converts shares to cpu.weight of cgroup v2.
MIN_SHARES, MAX_SHARES = 2, 262144
# The kernel refuses a smaller quota.
_MIN_QUOTA_US = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A limit of a disk in a second; kind is `ReadBps`, `WriteBps`, `ReadIOPS` or `WriteIOPS`."""

    kind: str
    major: int
    minor: int
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a task; 0 and "" mean "no limit".

    memory_swap_bytes counts memory too; 0 is no swap. cpu_quota_us counts per cpu_period_us. cpus
    and mems are lists such as `0-2,5`.
    """

    memory_bytes: int = 0
    memory_swap_bytes: int = 0
    memory_swappiness: int | None = None
    memory_reservation_bytes: int = 0
    cpu_shares: int = 0
    cpu_quota_us: int = 0
    cpu_period_us: int = 100_000
    cpus: str = ""
    mems: str = ""
    pids: int = 0
    io_weight: int = 0
    io_rates: tuple[Rate, ...] = ()


def shares(mhz: int, total_mhz: int) -> int:
    """Converts a job's MHz to cpu.shares.

    A share is a MHz, except on nodes with more MHz than MAX_SHARES: those scale all values.

    Args:
        mhz: the job's cpu resource.
        total_mhz: MHz of all cores of the node.
    """
    if total_mhz > MAX_SHARES:
        mhz = mhz * MAX_SHARES // total_mhz
    return max(MIN_SHARES, min(MAX_SHARES, mhz))


def quota_us(share_of_node: float, cores: int, period_us: int) -> int:
    """Returns the microseconds of CPU time that a task may use in each period.

    Args:
        share_of_node: the task's part of all cores, 0 to 1.
        cores: cores of the node.
        period_us: length of a period.
    """
    return max(_MIN_QUOTA_US, round(share_of_node * cores * period_us))


def oci_resources(limits: Limits) -> Document:
    """Builds the `linux.resources` of a spec, without devices."""
    resources: Document = {}
    cpu: Document = {}
    if limits.cpu_shares > 0:
        cpu["shares"] = limits.cpu_shares
    if limits.cpu_quota_us > 0:
        cpu["quota"] = limits.cpu_quota_us
        cpu["period"] = limits.cpu_period_us
    if limits.cpus:
        cpu["cpus"] = limits.cpus
    if limits.mems:
        cpu["mems"] = limits.mems
    if cpu:
        resources["cpu"] = cpu
    memory: Document = {}
    if limits.memory_bytes > 0:
        memory["limit"] = limits.memory_bytes
        # Memory and swap together: equal to the limit means no swap.
        memory["swap"] = limits.memory_swap_bytes or limits.memory_bytes
    if limits.memory_swappiness is not None:
        memory["swappiness"] = limits.memory_swappiness
    if limits.memory_reservation_bytes > 0:
        memory["reservation"] = limits.memory_reservation_bytes
    if memory:
        resources["memory"] = memory
    block_io: Document = {"weight": limits.io_weight} if limits.io_weight else {}
    for rate in limits.io_rates:
        device = {"major": rate.major, "minor": rate.minor, "rate": rate.limit}
        block_io.setdefault(f"throttle{rate.kind}Device", []).append(device)
    if block_io:
        resources["blockIO"] = block_io
    if limits.pids > 0:
        resources["pids"] = {"limit": limits.pids}
    return resources
