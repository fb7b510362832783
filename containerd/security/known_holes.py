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
from dataclasses import dataclass
from pathlib import Path

_NUMBER = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:[-~.]?rc\.?(\d+))?")
_DISTRIBUTION = re.compile(r"[+~]ds|deb\d|ubuntu|-\d+$")
_RELEASED = 1 << 30
_LIMIT_BYTES = 4 << 20
_CHANGELOGS = Path("/usr/share/doc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """A known hole; `closed` has the first release of each branch without the hole.

    escape: True if a task or an image can become root on the host.
    """

    cve: str
    effect: str
    closed: tuple[str, ...]
    escape: bool = False


def _escape(cve: str, effect: str, *closed: str) -> Hole:
    return Hole(cve=cve, effect=effect, closed=closed, escape=True)


_NOVEMBER_2025 = ("1.2.8", "1.3.3", "1.4.0-rc.3")
_HOLES = {
    "runc": (
        _escape("CVE-2024-21626", "an image opens the host", "1.1.12"),
        Hole(
            cve="CVE-2024-45310",
            effect="a task makes empty files on the host",
            closed=("1.1.14", "1.2.0-rc.3"),
        ),
        _escape("CVE-2025-31133", "a task opens the host", *_NOVEMBER_2025),
        _escape("CVE-2025-52565", "a task opens the host", *_NOVEMBER_2025),
        _escape("CVE-2025-52881", "a task opens the host", *_NOVEMBER_2025),
    ),
    "crun": (
        Hole(cve="CVE-2022-27650", effect="a task has inheritable rights", closed=("1.4.4",)),
    ),
    "containerd": (
        _escape("CVE-2020-15257", "a task in the host's network opens the host", "1.3.9", "1.4.3"),
        Hole(
            cve="CVE-2021-32760",
            effect="an image changes modes of the host's files",
            closed=("1.4.8", "1.5.4"),
        ),
        Hole(
            cve="CVE-2021-41103",
            effect="users of the host reach files of tasks",
            closed=("1.4.11", "1.5.7"),
        ),
        Hole(
            cve="CVE-2024-25621",
            effect="users of the host reach files of tasks",
            closed=("1.7.29", "2.0.7", "2.1.5", "2.2.0"),
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
    suspected = [hole for hole in _HOLES.get(program, ()) if not _closed(version, hole.closed)]
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
    newest = max((hole.closed for hole in holes), key=lambda closed: _numbers(closed[-1]))
    releases = " or ".join(newest)
    return (
        f"{program} {version} has known holes: {names}; install {program} {releases}, or a package"
        " of the distribution whose changelog names the holes"
    )


def _closed(version: str, releases: Sequence[str]) -> bool:
    installed = _numbers(version)
    fixed = [_numbers(release) for release in releases]
    same_branch = [release for release in fixed if release[:2] == installed[:2]]
    return any(installed >= release for release in same_branch) or installed[:2] > max(fixed)[:2]


def _numbers(version: str) -> tuple[int, int, int, int]:
    """Returns a key to order releases by; a candidate comes before the final release."""
    match = _NUMBER.search(version)
    if match is None:
        return 0, 0, 0, 0
    major, minor, patch, candidate = match.groups()
    return int(major), int(minor), int(patch), int(candidate) if candidate else _RELEASED


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
