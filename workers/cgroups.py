"""Readings of a container's cgroup: files opened once, read with pread, a few µs each.

A container is in a cgroup of version 2, or in a cgroup for each controller of version 1. Hybrid
hosts have both, and keep memory and cpu in version 1. Open files do not prevent the removal of a
cgroup: reads then fail with ENODEV, and the values are unknown.
"""

from __future__ import annotations

import os
import time

from workers import procfs
from workers.loop import PRIORITY, READ
from workers.protocol import Sample

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_READ_BYTES = 4096  # memory.stat of version 2 has about 2 KiB
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_V1_FILES = {
    "memory": (
        "memory.stat",
        "memory.usage_in_bytes",
        "memory.max_usage_in_bytes",
        "memory.kmem.usage_in_bytes",
        "memory.kmem.max_usage_in_bytes",
    ),
    "cpuacct": ("cpuacct.usage", "cpuacct.stat"),
    "cpu": ("cpu.stat",),
}
_V2_FILES = (
    "memory.stat",
    "memory.current",
    "memory.peak",
    "memory.swap.current",
    "cpu.stat",
)
_V1_KILLS = "memory.oom_control"
_V1_NOTICES = "cgroup.event_control"
_V2_KILLS = "memory.events"

Table = dict[bytes, int]


class Readings:
    """The open files of a container's cgroup.

    The count of kills is opened at once, for a read after the end of the container. The other files
    are opened for the first sample, for most tasks never.

    Args:
        v2: True if `paths` names a cgroup of version 2.
        paths: directory by controller; version 2 has a single directory, under the name "".
    """

    def __init__(self, *, v2: bool, paths: Mapping[str, str]) -> None:
        self.v2 = v2
        self._paths = paths
        self._files: dict[str, int] = {}
        self._complete = False
        self.oom_notice = -1
        """Descriptor with `oom_events` after a possible kill; -1: the kernel gives no notice."""
        self.oom_events = PRIORITY if v2 else READ
        if v2:
            self._open("", _V2_KILLS)
            self.oom_notice = self._files.get(_V2_KILLS, -1)
        else:
            self._open("memory", _V1_KILLS)
            self._request_notices()

    def sample(self) -> Sample:
        """Reads the values now."""
        if not self._complete:
            self._complete = True
            for controller, names in ({"": _V2_FILES} if self.v2 else _V1_FILES).items():
                for name in names:
                    self._open(controller, name)
        return self._sample_v2() if self.v2 else self._sample_v1()

    def oom_kills(self) -> int:
        """Returns how many processes the kernel killed for lack of memory; 0 if unknown."""
        table = self._table(_V2_KILLS if self.v2 else _V1_KILLS)
        return table.get(b"oom_kill", 0)

    def clear_notice(self) -> bool:
        """Resets the notice, for later kills; False if the cgroup is gone."""
        if not self.v2 and self.oom_notice >= 0:
            os.eventfd_read(self.oom_notice)
        return bool(self._read(_V2_KILLS if self.v2 else _V1_KILLS))

    def close(self) -> None:
        """Closes the files."""
        self._complete = True
        if not self.v2 and self.oom_notice >= 0:
            os.close(self.oom_notice)
        self.oom_notice = -1
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def _open(self, controller: str, name: str) -> None:
        directory = self._paths.get(controller)
        if directory is None:
            return
        try:
            self._files[name] = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return  # not every kernel has every file: the value stays unknown

    def _request_notices(self) -> None:
        kills = self._files.get(_V1_KILLS)
        directory = self._paths.get("memory")
        if kills is None:
            return
        notice = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            control = os.open(f"{directory}/{_V1_NOTICES}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(control, f"{notice} {kills}".encode())
            finally:
                os.close(control)
        except OSError:  # a read-only /sys, or a kernel without notices
            os.close(notice)
        else:
            self.oom_notice = notice

    def _sample_v1(self) -> Sample:
        memory = self._table("memory.stat")
        usage = self._table("cpuacct.stat")
        throttling = self._table("cpu.stat")
        return Sample(
            t_ns=time.time_ns(),
            m_ns=time.monotonic_ns(),
            cpu_total_ns=self._number("cpuacct.usage"),
            cpu_user_ns=_scaled(usage.get(b"user"), _TICK_NS),
            cpu_system_ns=_scaled(usage.get(b"system"), _TICK_NS),
            throttled_periods=throttling.get(b"nr_throttled"),
            throttled_ns=throttling.get(b"throttled_time"),
            usage=self._number("memory.usage_in_bytes"),
            rss=memory.get(b"total_rss"),
            cache=memory.get(b"total_cache"),
            swap=memory.get(b"total_swap"),
            max_usage=self._number("memory.max_usage_in_bytes"),
            kernel_usage=self._number("memory.kmem.usage_in_bytes"),
            kernel_max_usage=self._number("memory.kmem.max_usage_in_bytes"),
        )

    def _sample_v2(self) -> Sample:
        memory = self._table("memory.stat")
        cpu = self._table("cpu.stat")
        return Sample(
            t_ns=time.time_ns(),
            m_ns=time.monotonic_ns(),
            cpu_total_ns=_scaled(cpu.get(b"usage_usec"), 1000),
            cpu_user_ns=_scaled(cpu.get(b"user_usec"), 1000),
            cpu_system_ns=_scaled(cpu.get(b"system_usec"), 1000),
            throttled_periods=cpu.get(b"nr_throttled"),
            throttled_ns=_scaled(cpu.get(b"throttled_usec"), 1000),
            usage=self._number("memory.current"),
            rss=memory.get(b"anon"),
            cache=memory.get(b"file"),
            swap=self._number("memory.swap.current"),
            max_usage=self._number("memory.peak"),
            kernel_usage=memory.get(b"kernel"),
        )

    def _read(self, name: str) -> bytes:
        descriptor = self._files.get(name)
        if descriptor is None:
            return b""
        try:
            return os.pread(descriptor, _READ_BYTES, 0)
        except OSError:  # ENODEV: the cgroup is gone
            return b""

    def _number(self, name: str) -> int | None:
        text = self._read(name)
        return int(text) if text.strip().isdigit() else None

    def _table(self, name: str) -> Table:
        table: Table = {}
        for line in self._read(name).splitlines():
            key, _, value = line.partition(b" ")
            if value.isdigit():
                table[key] = int(value)
        return table


def locate(pid: int) -> Readings:
    """Opens the readings of the cgroup of `pid`.

    Raises:
        OSError: the process is gone, or /proc is missing.
    """
    groups = _parse_cgroup(procfs.read(f"/proc/{pid}/cgroup"))
    paths = _directories(groups)
    for path in paths.values():
        if not os.access(path, os.F_OK):
            _mounts.clear()
            paths = _directories(groups)
            break
    return Readings(v2="memory" not in paths and "cpuacct" not in paths, paths=paths)


_mounts: dict[str, tuple[str, str]] = {}
"""Mounts of the hierarchies. The launcher's warm-up fills the table, so no worker has to read all
mounts of the host, possibly thousands."""


def _directories(groups: Mapping[str, str]) -> dict[str, str]:
    if not _mounts:
        _mounts.update(_parse_mountinfo(procfs.read("/proc/self/mountinfo")))
    paths: dict[str, str] = {}
    for controller in ("", *_V1_FILES):
        if controller in _mounts and controller in groups:
            paths[controller] = _below(*_mounts[controller], groups[controller])
    return paths


def _parse_cgroup(text: str) -> dict[str, str]:
    """Reads /proc/PID/cgroup: path by controller; the version 2 line has an empty controller."""
    groups: dict[str, str] = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = path
    return groups


def _parse_mountinfo(text: str) -> dict[str, tuple[str, str]]:
    """Reads mountinfo: (root within the hierarchy, mount point) by controller, "" for version 2."""
    mounts: dict[str, tuple[str, str]] = {}
    for line in text.splitlines():
        place, _, kind = line.partition(" - ")
        if not kind.startswith("cgroup"):
            continue
        root, point = place.split(" ", 5)[3:5]
        filesystem, _, options = kind.split(" ", 2)
        names = [""] if filesystem == "cgroup2" else options.split(",")
        for name in names:
            mounts.setdefault(name, (root, point))
    return mounts


def _below(root: str, point: str, group: str) -> str:
    """Returns the path of a cgroup on the host: a bind mount may show a part of a hierarchy."""
    inner = group.removeprefix(root) if root != "/" else group
    return f"{point}/{inner.strip('/')}"


def _scaled(value: int | None, factor: int) -> int | None:
    return None if value is None else value * factor
