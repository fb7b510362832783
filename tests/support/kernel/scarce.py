"""Shortage for one process: no disk, descriptors, forks or memory. The end restores all of them.

Each function limits its target alone: a file system of the test, the limit of one process, or a
cgroup with one process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from containerd import syscalls
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.needs import missing, need_root_here


class SmallDisk:
    """A file system of a few kilobytes, until `close`.

    Args:
        directory: the mount point.
        size: the size in tmpfs's form.
        inodes: the greatest number of files.

    Attributes:
        daemon: the daemon that uses the disk, in tests with several.
    """

    def __init__(self, directory: Path, size: str = "1m", inodes: int = 1000) -> None:
        need_root_here()
        options = f"mode=0700,size={size},nr_inodes={inodes}"
        syscalls.mount("tmpfs", str(directory), "tmpfs", 0, options)
        self.directory = directory
        self.daemon: ContainerdDaemon | None = None
        self._ballast = directory / "ballast"

    @classmethod
    def of(cls, directory: Path) -> Self:
        """Returns the disk that is mounted at a directory."""
        found = cls.__new__(cls)
        found.directory, found.daemon, found._ballast = directory, None, directory / "ballast"
        return found

    def free_bytes(self) -> int:
        """Returns the number of free bytes."""
        found = os.statvfs(self.directory)
        return found.f_bavail * found.f_bsize

    def fill(self) -> None:
        """Takes all free bytes."""
        with self._ballast.open("ab", buffering=0) as ballast, _until_full():
            while ballast.write(bytes(4096)):
                pass

    def fill_inodes(self) -> None:
        """Takes all free inodes."""
        self._ballast.mkdir(exist_ok=True)
        with _until_full():
            while True:
                (self._ballast / secrets.token_hex(4)).touch()

    def free(self) -> None:
        """Frees the taken bytes and inodes."""
        if self._ballast.is_dir():
            for file in self._ballast.iterdir():
                file.unlink()
            self._ballast.rmdir()
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmounts the disk, even with open files."""
        syscalls.unmount(str(self.directory))


@contextlib.contextmanager
def _until_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


@contextlib.contextmanager
def no_descriptors(pid: int, left: int = 0) -> Iterator[None]:
    """Limits a process to `left` more open files for a `with` block."""
    used = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    free = (number for number in range(len(used) + left + 1) if number not in used)
    limit = [number for number, _ in zip(free, range(left + 1), strict=False)][-1]
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def no_forks(pid: int, more: int = 0) -> Iterator[None]:
    """Limits a process to `more` new processes or threads for a `with` block."""
    with _cgroup("pids", pid) as group:
        now = int((group / "pids.current").read_text())
        (group / "pids.max").write_text(str(now + more))
        yield
        (group / "pids.max").write_text("max")


@contextlib.contextmanager
def little_memory(pid: int, more_bytes: int) -> Iterator[Callable[[], int]]:
    """Limits a process and its children to `more_bytes` more memory for a `with` block.

    Yields a function that returns the number of processes that the kernel killed for memory.
    """
    with _cgroup("memory", pid) as group:
        first = group / "memory.limit_in_bytes"  # of version 1
        limit = first if first.exists() else group / "memory.max"
        counts = group / ("memory.oom_control" if first.exists() else "memory.events")
        for name, value in (("memory.swap.max", "0"), ("memory.swappiness", "0")):
            if (group / name).exists():
                (group / name).write_text(value)
        limit.write_text(str(more_bytes))

        def kills() -> int:
            lines = dict(line.split() for line in counts.read_text().splitlines())
            return int(lines["oom_kill"])

        yield kills
        limit.write_text("-1" if first.exists() else "max")


@contextlib.contextmanager
def _cgroup(controller: str, pid: int) -> Iterator[Path]:
    """Moves one process into a new cgroup for a `with` block, then back with all its children."""
    need_root_here()
    root = _root_of(controller)
    home = _cgroup_of(pid, root, controller)
    group = root / f"cd-test-{secrets.token_hex(4)}"
    group.mkdir()
    try:
        if not list(group.glob(f"{controller}.*")):
            missing("root", f"the {controller} controller of cgroups is not there")
        (group / "cgroup.procs").write_text(str(pid))
        yield group
    finally:
        for member in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                (home / "cgroup.procs").write_text(member)
        group.rmdir()


def _root_of(controller: str) -> Path:
    roots = (Path("/sys/fs/cgroup", controller), Path("/sys/fs/cgroup"))
    found = [root for root in roots if os.access(root / "cgroup.procs", os.W_OK)]
    if not found:
        missing("root", f"no cgroup whose {controller} a test may limit")
    return found[0]


def _cgroup_of(pid: int, root: Path, controller: str) -> Path:
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers.split(",") == ([controller] if root.name == controller else [""]):
            return root / path.lstrip("/")
    return root
