"""Holes in runtimes and in containerd that are known by name, and in which release each is closed.

A distribution closes holes without a new number. Its own changelog is the fact there: it names each
hole that a package's revision closes.
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
    """One hole: what it lets happen, and the first release of each branch without it."""

    cve: str
    what: str
    closed: tuple[str, ...]


_NOVEMBER_2025 = ("1.2.8", "1.3.3", "1.4.0-rc.3")
_HOLES = {
    "runc": (
        Hole(cve="CVE-2024-21626", what="an image opens the host", closed=("1.1.12",)),
        Hole(
            cve="CVE-2024-45310",
            what="a task makes empty files on the host",
            closed=("1.1.14", "1.2.0-rc.3"),
        ),
        Hole(cve="CVE-2025-31133", what="a task opens the host", closed=_NOVEMBER_2025),
        Hole(cve="CVE-2025-52565", what="a task opens the host", closed=_NOVEMBER_2025),
        Hole(cve="CVE-2025-52881", what="a task opens the host", closed=_NOVEMBER_2025),
    ),
    "crun": (Hole(cve="CVE-2022-27650", what="a task has inheritable rights", closed=("1.4.4",)),),
    "containerd": (
        Hole(
            cve="CVE-2020-15257",
            what="a task in the host's network opens the host",
            closed=("1.3.9", "1.4.3"),
        ),
        Hole(
            cve="CVE-2021-32760",
            what="an image changes modes of the host's files",
            closed=("1.4.8", "1.5.4"),
        ),
        Hole(
            cve="CVE-2021-41103",
            what="users of the host reach files of tasks",
            closed=("1.4.11", "1.5.7"),
        ),
        Hole(
            cve="CVE-2024-25621",
            what="users of the host reach files of tasks",
            closed=("1.7.29", "2.0.7", "2.1.5", "2.2.0"),
        ),
    ),
}


def of(program: str, version: str, changelogs: Path = _CHANGELOGS) -> tuple[Hole, ...]:
    """Returns the known holes of a program; empty where its version says nothing. Blocks.

    Args:
        program: runc, crun or containerd.
        version: what the program itself says, with a distribution's marks.
        changelogs: where packages have their documents.
    """
    if _NUMBER.search(version) is None:
        return ()
    suspected = [hole for hole in _HOLES.get(program, ()) if not _closed(version, hole.closed)]
    if not suspected or _DISTRIBUTION.search(version) is None:
        return tuple(suspected)
    told = _changelog(changelogs / program)
    return tuple(hole for hole in suspected if hole.cve not in told)


def _closed(version: str, releases: Sequence[str]) -> bool:
    ours = _numbers(version)
    fixed = [_numbers(release) for release in releases]
    same_branch = [release for release in fixed if release[:2] == ours[:2]]
    return any(ours >= release for release in same_branch) or ours[:2] > max(fixed)[:2]


def _numbers(version: str) -> tuple[int, int, int, int]:
    """Returns what orders releases; a candidate comes before its release."""
    found = _NUMBER.search(version)
    if found is None:
        return 0, 0, 0, 0
    major, minor, patch, candidate = found.groups()
    return int(major), int(minor), int(patch), int(candidate) if candidate else _RELEASED


def _changelog(directory: Path) -> str:
    path = directory / "changelog.Debian.gz"
    try:
        return _text(path, path.stat().st_mtime_ns)
    except (OSError, EOFError, zlib.error):
        return ""


@functools.cache
def _text(path: Path, changed_ns: int) -> str:
    del changed_ns  # another time is another text
    with gzip.open(path) as file:
        return file.read(_LIMIT_BYTES).decode(errors="replace")
