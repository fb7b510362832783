"""Lists known holes (CVEs) of runtimes and of containerd, with the releases that close each hole.

A distribution closes holes without a new version number. For a distribution's package the package's
changelog decides: the changelog names each hole that a revision closes.
"""

from __future__ import annotations

import functools
import gzip
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

from proto.values import dataclass

# crun has releases of two numbers: 1.28 is the first of its branch.
_NUMBER = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?:[-~.]?rc\.?(\d+))?")
_DISTRIBUTION = re.compile(r"[+~]ds|deb\d|ubuntu|-\d+$")
_RELEASED = 1 << 30
_LIMIT_BYTES = 4 << 20
_CHANGELOGS = Path("/usr/share/doc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """A known hole; `closed` has the first release of each branch without the hole.

    opened: the first release with the hole; empty for a hole of all releases before `closed`.
    escape: True if a task or an image of this driver can become root on the host. Holes of CRI and
        of checkpoints are none: the driver uses neither.
    """

    cve: str
    effect: str
    closed: tuple[str, ...]
    opened: str = ""
    escape: bool = False


def _hole(cve: str, effect: str, *closed: str, opened: str = "") -> Hole:
    return Hole(cve=cve, effect=effect, closed=closed, opened=opened)


def _escape(cve: str, effect: str, *closed: str, opened: str = "") -> Hole:
    return Hole(cve=cve, effect=effect, closed=closed, opened=opened, escape=True)


_NOVEMBER_2025 = ("1.2.8", "1.3.3", "1.4.0-rc.3")
_JUNE_2026 = ("2.1.9", "2.2.5", "2.3.2")
_HOLES = {
    "runc": (
        _escape("CVE-2024-21626", "an image opens the host", "1.1.12"),
        _hole("CVE-2024-45310", "a task makes empty files on the host", "1.1.14", "1.2.0-rc.3"),
        _escape("CVE-2025-31133", "a task opens the host", *_NOVEMBER_2025),
        _escape("CVE-2025-52565", "a task opens the host", *_NOVEMBER_2025),
        _escape("CVE-2025-52881", "a task opens the host", *_NOVEMBER_2025),
        _hole("CVE-2026-41579", "an image makes links on the host", "1.3.6", "1.4.3", "1.5.0-rc.3"),
        _hole(
            "CVE-2026-119101",
            "an image opens the host, by a restored checkpoint",
            *("1.3.7", "1.4.4", "1.5.3", "1.6.0-rc.2"),
        ),
    ),
    "crun": (
        _hole("CVE-2022-27650", "a task has inheritable rights", "1.4.4"),
        _hole("CVE-2026-47766", "an image makes devices on the host", "1.28"),
        _hole(
            "CVE-2026-88264", "an image makes a file on the host, without a mount at /dev", "1.30"
        ),
        _hole("CVE-2026-88265", "an image owns a mounted file, without a mount at /dev", "1.30"),
        _hole("CVE-2026-115520", "an image opens the host, by a restored checkpoint", "1.31"),
    ),
    "containerd": (
        _escape("CVE-2020-15257", "a task in the host's network opens the host", "1.3.9", "1.4.3"),
        _hole("CVE-2021-32760", "an image changes modes of the host's files", "1.4.8", "1.5.4"),
        _hole("CVE-2021-41103", "users of the host reach files of tasks", "1.4.11", "1.5.7"),
        _hole(
            "CVE-2024-25621",
            "users of the host reach files of tasks",
            *("1.7.29", "2.0.7", "2.1.5", "2.2.0"),
        ),
        _escape("CVE-2025-47290", "an image writes the host's files", "2.1.1", opened="2.1.0"),
        _hole(
            "CVE-2026-53488",
            "an image runs commands on the host, by CRI",
            *("1.7.33", "2.0.10", *_JUNE_2026),
        ),
        _hole(
            "CVE-2026-53489",
            "a checkpoint reads the host's files, by CRI",
            *_JUNE_2026,
            opened="2.1.0",
        ),
        _hole(
            "CVE-2026-53492",
            "a checkpoint gets devices and mounts of the host, by CRI",
            *_JUNE_2026,
            opened="2.1.0",
        ),
        _hole(
            "CVE-2026-95837",
            "a checkpoint keeps its rights, by CRI",
            *("2.2.7", "2.3.4"),
            opened="2.1.0",
        ),
    ),
}


def of(program: str, version: str, changelogs: Path = _CHANGELOGS) -> tuple[Hole, ...]:
    """Returns the known holes of a program; empty for an unknown form of version. Blocks.

    Args:
        program: runc, crun or containerd.
        version: the program's own version text, with a distribution's additions.
        changelogs: directory of the packages' documents.
    """
    if _NUMBER.search(version) is None:
        return ()
    suspected = [hole for hole in _HOLES.get(program, ()) if _has(version, hole)]
    if not suspected or _DISTRIBUTION.search(version) is None:
        return tuple(suspected)
    changelog = _changelog(changelogs / program)
    return tuple(hole for hole in suspected if hole.cve not in changelog)


def refusal(program: str, version: str, changelogs: Path = _CHANGELOGS) -> str:
    """Returns a sentence about the holes by which a task can become root on the host. Blocks.

    Args:
        program: runc, crun or containerd.
        version: as for `of`.
        changelogs: directory of the packages' documents.

    Returns:
        The sentence with the releases to install; empty for a program without such a hole.
    """
    holes = [hole for hole in of(program, version, changelogs) if hole.escape]
    if not holes:
        return ""
    names = ", ".join(f"{hole.cve} ({hole.effect})" for hole in holes)
    releases = " or ".join(_without_escapes(program, holes))
    return (
        f"{program} {version} has known holes: {names}; install {program} {releases} or newer, or a"
        " package of the distribution whose changelog names the holes"
    )


def _without_escapes(program: str, holes: Sequence[Hole]) -> list[str]:
    """Returns the first release of each branch that closes the holes and has no other escape."""
    escapes = [hole for hole in _HOLES[program] if hole.escape]
    releases = {release for hole in holes for release in hole.closed}
    clean = (one for one in releases if not any(_has(one, escape) for escape in escapes))
    return sorted(clean, key=_numbers)


def _has(version: str, hole: Hole) -> bool:
    installed = _numbers(version)
    if hole.opened and installed < _numbers(hole.opened):
        return False
    fixed = [_numbers(release) for release in hole.closed]
    same_branch = [release for release in fixed if release[:2] == installed[:2]]
    newer_branch = installed[:2] > max(fixed)[:2]
    return not newer_branch and not any(installed >= release for release in same_branch)


def _numbers(version: str) -> tuple[int, int, int, int]:
    """Returns a key to order releases by; a candidate comes before the final release."""
    match = _NUMBER.search(version)
    if match is None:
        return 0, 0, 0, 0
    major, minor, patch, candidate = match.groups()
    return int(major), int(minor), int(patch or 0), int(candidate) if candidate else _RELEASED


def _changelog(directory: Path) -> str:
    path = directory / "changelog.Debian.gz"
    try:
        return _text(path, path.stat().st_mtime_ns)
    except (OSError, EOFError, zlib.error):
        return ""


@functools.cache
def _text(path: Path, changed_ns: int) -> str:
    del changed_ns  # a part of the cache's key: a changed file is read again
    with gzip.open(path) as file:
        return file.read(_LIMIT_BYTES).decode(errors="replace")
