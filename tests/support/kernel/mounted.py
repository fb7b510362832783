"""Mounts of tests: found and detached before pytest removes the directory around them."""

from __future__ import annotations

from pathlib import Path

from containerd import syscalls


def detach_below(directory: Path) -> list[str]:
    """Detaches all mounts below a directory, the deepest first, and returns their paths."""
    base = f"{directory.resolve()}/"
    # mountinfo writes a space of a path as \040, and leaves other separators of words and lines.
    lines = Path("/proc/self/mountinfo").read_bytes().decode(errors="replace").split("\n")[:-1]
    targets = [line.split(" ")[4].encode().decode("unicode_escape") for line in lines]
    found = [target for target in targets if target.startswith(base)]
    for target in reversed(found):
        syscalls.unmount(target)
    return found
