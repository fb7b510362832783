"""Finds and ends processes and cgroups of a killed host and the host's driver."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

from tests.support.waiting import wait_until


def pids_with(word: str) -> list[int]:
    """Returns processes whose arguments contain the word, except the current process."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if word.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return sorted(found)


def mounts_below(folder: Path) -> list[str]:
    """Returns mount points in a folder, the deepest first."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    targets = [line.split()[1].replace("\\040", " ") for line in lines]
    return sorted((t for t in targets if Path(t).is_relative_to(folder)), reverse=True)


def unmount_below(folder: Path) -> None:
    """Takes away every mount in the folder."""
    for target in mounts_below(folder):
        subprocess.run(["umount", "-l", target], check=False, stdin=subprocess.DEVNULL)


def end_all_with(word: str) -> None:
    """Kills the processes whose arguments contain the word, a folder name of the tests."""
    for pid in pids_with(word):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not pids_with(word), 10, lambda: f"{word}: {pids_with(word)} live on")


def cgroups_named(part: str) -> list[Path]:
    """Returns cgroup directories of any hierarchy whose name contains the part."""
    done = subprocess.run(
        ["find", "/sys/fs/cgroup", "-type", "d", "-name", f"*{part}*"],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    return [Path(line) for line in done.stdout.splitlines()]


def end_cgroups(part: str) -> None:
    """Kills the processes in the cgroups with the part in their name, then removes the cgroups.

    A container whose shim and driver were killed lives on with arguments of its own. Only the
    cgroup identifies the container.
    """

    def gone() -> bool:
        for folder in cgroups_named(part):
            with contextlib.suppress(OSError):
                for pid in (folder / "cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
                folder.rmdir()
        return not cgroups_named(part)

    wait_until(gone, 20, lambda: f"cgroups stay: {cgroups_named(part)}")
