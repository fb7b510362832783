"""A task's cgroup and the kernel's counters, in the form of either cgroup version.

A hybrid host has both and keeps these controllers in version 1.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
V2 = (ROOT / "cgroup.controllers").exists()


class TaskCgroup:
    """The cgroup `/<namespace>/<container>`, at the same place as with the driver's predecessor."""

    def __init__(self, namespace: str, container: str) -> None:
        self._path = f"{namespace}/{container}"

    def directory(self, controller: str) -> Path:
        """Returns the directory for a controller of version 1; version 2 has a single directory."""
        return ROOT / self._path if V2 else ROOT / controller / self._path

    @property
    def memory_limit(self) -> int:
        """Bytes beyond which the kernel kills."""
        return self._number("memory", "memory.limit_in_bytes", "memory.max")

    @property
    def memory_reservation(self) -> int:
        """Bytes that the kernel leaves to the cgroup when memory is short."""
        return self._number("memory", "memory.soft_limit_in_bytes", "memory.low")

    @property
    def memory_usage(self) -> int:
        """Bytes in use, caches included."""
        return self._number("memory", "memory.usage_in_bytes", "memory.current")

    @property
    def anonymous_bytes(self) -> int:
        """Bytes that belong to no file: Nomad's RSS."""
        return self._stat("memory", "memory.stat", "total_rss", "anon")

    @property
    def cache_bytes(self) -> int:
        """Bytes of files."""
        return self._stat("memory", "memory.stat", "total_cache", "file")

    @property
    def cpu_ns(self) -> int:
        """Processor time so far."""
        if V2:
            return self._stat("", "cpu.stat", "", "usage_usec") * 1000
        return self._number("cpuacct", "cpuacct.usage", "")

    @property
    def pids_limit(self) -> str:
        """Most processes at once, or `max`."""
        return (self.directory("pids") / "pids.max").read_text().strip()

    def exists(self) -> bool:
        """Tells whether the cgroup exists."""
        return self.directory("memory").exists()

    def _number(self, controller: str, v1: str, v2: str) -> int:
        return int((self.directory(controller) / (v2 if V2 else v1)).read_text())

    def _stat(self, controller: str, file: str, v1: str, v2: str) -> int:
        lines = (self.directory(controller) / file).read_text().splitlines()
        table = dict(line.split(" ", 1) for line in lines)
        return int(table[v2 if V2 else v1])
