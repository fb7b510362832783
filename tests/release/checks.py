"""Checks before a release: numbers, changes, vectors, pages, repository.

Each check returns sentences with the place and the remedy. An empty list means that the release can
be built.
"""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

from proto.release import RELEASE
from tests.support.fakes.vectors import DISK, FRAMES

_MANUAL = "packaging/debian/system/containerd-driver.1"
_DEBIAN = "packaging/debian/changelog"
_PAGES = ("docs/compatibility.md", "docs/performance.md")


def problems(root: Path, version: str) -> list[str]:
    """Returns all obstacles to the release of `version` from the checkout `root`."""
    return [*_numbers(root, version), *_texts(root, version), *_repository(root, version)]


def _numbers(root: Path, version: str) -> Iterator[str]:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    title = re.search(r"^\.TH .*\"containerd-driver (\S+)\"", (root / _MANUAL).read_text())
    entry = re.match(r"\S+ \((\S+)\)", (root / _DEBIAN).read_text())
    for place, number in (
        ("proto/release.py", RELEASE),
        ("pyproject.toml", project),
        (_MANUAL, title and title[1]),
        (_DEBIAN, entry and entry[1]),
    ):
        if number != version:
            yield f"{place} has the number {number}, the release is {version}: set the number"


def _texts(root: Path, version: str) -> Iterator[str]:
    heading = re.search(r"^## (.*)$", (root / "CHANGES.md").read_text(), re.MULTILINE)
    newest = heading[1] if heading else "no section"
    if newest != version:
        yield f"CHANGES.md begins with '{newest}': the first section must be '## {version}'"
    vectors = root / "tests" / "vectors" / version
    if not all((vectors / name).is_file() for name in (FRAMES, DISK)):
        yield f"tests/vectors/{version} has no recorded frames: run ./dev vectors, commit the files"
    for page in _PAGES:
        if not re.search(rf"(?<![\d.]){re.escape(version)}(?![\d.]*\d)", (root / page).read_text()):
            yield f"{page} does not name {version}: write the results of this release, or of which"


def _repository(root: Path, version: str) -> Iterator[str]:
    if changed := _git(root, "status", "--porcelain"):
        yield f"{len(changed.splitlines())} files are not committed, see git status: commit them"
    tag = f"v{version}"
    if _git(root, "tag", "--list", tag) and _git(root, "rev-list", "-1", tag) != _git(
        root, "rev-parse", "HEAD"
    ):
        yield f"the tag {tag} is on another commit: a release is never made a second time"


def _git(root: Path, *words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()
