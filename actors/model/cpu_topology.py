"""Measures the node's CPU count and MHz: agents before Nomad 1.7 send no topology."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from proto.values import dataclass

if TYPE_CHECKING:
    from actors.model.settings import DriverSettings

_UNKNOWN_MHZ = 1000
"""A Nomad client's value for a core whose frequency the kernel does not report."""
_FREQUENCIES = ("base_frequency", "cpuinfo_max_freq")
_CPUINFO = re.compile(r"^cpu MHz\s*:\s*([\d.]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpeed:
    """The node as Nomad counts: MHz of all cores together, and the number of cores."""

    total_mhz: int
    cores: int

    def share(self, mhz: int) -> float:
        """Returns the share of a job's MHz in the whole node, 0 to 1, as a Nomad client does.

        cpu_hard_limit limits a task to the share.
        """
        return min(1.0, mhz / (self.total_mhz or _UNKNOWN_MHZ * self.cores))


def completed(settings: DriverSettings) -> DriverSettings:
    """Returns settings with the node's speed, measured where Nomad does not send the speed."""
    if settings.total_mhz:
        return settings
    speed = measure()
    return dataclasses.replace(settings, total_mhz=speed.total_mhz, cores=speed.cores)


def measure(
    cpus: Path = Path("/sys/devices/system/cpu"), cpuinfo: Path = Path("/proc/cpuinfo")
) -> NodeSpeed:
    """Multiplies the first core's base or greatest frequency by the cores, as old agents do.

    Returns 0 MHz where the kernel reports no frequency, as on many arm64 machines without cpufreq.

    Args:
        cpus: the kernel's directory of CPUs.
        cpuinfo: the kernel's text about CPUs, for machines without cpufreq.
    """
    cores = os.cpu_count() or 1
    for name in _FREQUENCIES:
        try:
            khz = int((cpus / "cpu0" / "cpufreq" / name).read_text())
        except (OSError, ValueError):
            continue
        return NodeSpeed(total_mhz=khz // 1000 * cores, cores=cores)
    try:
        found = _CPUINFO.search(cpuinfo.read_text())
    except OSError:
        found = None
    return NodeSpeed(total_mhz=round(float(found[1]) * cores) if found else 0, cores=cores)
