"""Limits of a task as the OCI spec writes them: memory, CPU, processes. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# cpu.shares of cgroup v1; runc turns them into the weight of v2.
MIN_SHARES, MAX_SHARES = 2, 262144
# The kernel takes no smaller quota.
_MIN_QUOTA_US = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """0 and "" are "no limit". Sizes in bytes; cpu_quota_us per cpu_period_us; cpus as `0-2,5`."""

    memory_bytes: int = 0
    memory_reservation_bytes: int = 0
    cpu_shares: int = 0
    cpu_quota_us: int = 0
    cpu_period_us: int = 100_000
    cpus: str = ""
    pids: int = 0


def shares(mhz: int, total_mhz: int) -> int:
    """A job's MHz as cpu.shares: as they are, but scaled on nodes that have more than fit."""
    if total_mhz > MAX_SHARES:
        mhz = mhz * MAX_SHARES // total_mhz
    return max(MIN_SHARES, min(MAX_SHARES, mhz))


def quota_us(share_of_node: float, cores: int, period_us: int) -> int:
    """CPU time per period of a task that may use this share (0 to 1) of all cores, and no more."""
    return max(_MIN_QUOTA_US, round(share_of_node * cores * period_us))


def document(limits: Limits) -> dict[str, Any]:
    """The `linux.resources` of a spec, without devices."""
    resources: dict[str, Any] = {}
    cpu: dict[str, Any] = {}
    if limits.cpu_shares > 0:
        cpu["shares"] = limits.cpu_shares
    if limits.cpu_quota_us > 0:
        cpu["quota"] = limits.cpu_quota_us
        cpu["period"] = limits.cpu_period_us
    if limits.cpus:
        cpu["cpus"] = limits.cpus
    if cpu:
        resources["cpu"] = cpu
    memory: dict[str, Any] = {}
    if limits.memory_bytes > 0:
        memory["limit"] = limits.memory_bytes
        # Memory and swap together: equal to the limit means no swap.
        memory["swap"] = limits.memory_bytes
    if limits.memory_reservation_bytes > 0:
        memory["reservation"] = limits.memory_reservation_bytes
    if memory:
        resources["memory"] = memory
    if limits.pids > 0:
        resources["pids"] = {"limit": limits.pids}
    return resources
