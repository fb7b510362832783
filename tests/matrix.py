"""`./dev matrix [VERSIONS] [-- PYTEST ARGS]`: the containerd tier on each containerd, as a table.

`tests.support.daemons.containerd_versions` fetches or builds each version. The tests run on one
version after the other, each in a pytest of its own. The exit status is 1 after a failed test.

`./dev matrix arm64` runs several tiers on another architecture, in the guest of
`./dev guest bookworm-arm64`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

from tests import side_by_side
from tests.support.daemons.containerd_versions import VERSIONS, FetchError, fetch

_ROOT = Path(__file__).resolve().parents[1]
_TIER = ("-m", "containerd", "tests/contract", "tests/containerd")
ARM64 = "arm64"
_ARM64_TESTS = "tests/packaging/test_arm64.py"
REPORTS = "GUEST_REPORTS"
"""Variable of the environment: a directory for the JUnit reports of tests in a guest."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """Pytest's result for one version."""

    version: str
    release: str
    seconds: float = 0.0
    passed: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)

    def add(self, report: Path) -> None:
        """Adds the cases of a JUnit report to the cases of earlier reports."""
        # A failed test with a failed fixture is in the report twice.
        worst: dict[str, str] = {}
        for case in ET.parse(report).iter("testcase"):  # noqa: S314 - our own pytest's
            name = f"{case.get('classname')}::{case.get('name')}"
            kinds = {child.tag for child in case}
            if kinds & {"failure", "error"}:
                worst[name] = "failed"
            else:
                worst.setdefault(name, "skipped" if "skipped" in kinds else "passed")
        self.failed += [name for name, kind in worst.items() if kind == "failed"]
        self.skipped += sum(kind == "skipped" for kind in worst.values())
        self.passed += sum(kind == "passed" for kind in worst.values())


def run(version: str, arguments: Sequence[str]) -> Outcome:
    """Runs the tier on one containerd.

    Raises:
        FetchError: the containerd cannot be had.
    """
    folder = fetch(version)
    said = subprocess.run(
        [folder / "containerd", "--version"], check=True, capture_output=True, text=True
    ).stdout.split()
    outcome = Outcome(version=version, release=said[2])
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        report = Path(work) / "report.xml"
        pytest = [sys.executable, "-m", "pytest", f"--junitxml={report}", *arguments]
        ended = subprocess.run(
            pytest, cwd=_ROOT, check=False, env={**os.environ, "CONTAINERD_BIN_DIR": str(folder)}
        )
        if report.exists():
            outcome.add(report)
    if ended.returncode and not outcome.failed:
        outcome.failed.append(f"pytest itself, with status {ended.returncode}")
    outcome.seconds = time.monotonic() - begun
    return outcome


def run_arm64() -> Outcome:
    """Runs tiers in the guest for arm64, and counts the tests of this machine and of the guest."""
    outcome = Outcome(version=ARM64, release="Debian's")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        report = f"--junitxml={work}/machine.xml"
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", "-v", report, _ARM64_TESTS],
            cwd=_ROOT,
            check=False,
            env={**os.environ, REPORTS: work, "REQUIRE": "packaging"},
        )
        for path in sorted(Path(work).glob("*.xml")):
            outcome.add(path)
    if ended.returncode and not outcome.failed:
        outcome.failed.append(f"pytest itself, with status {ended.returncode}")
    outcome.seconds = time.monotonic() - begun
    return outcome


def table(outcomes: Iterable[Outcome]) -> str:
    """Formats the outcomes in columns, failures beneath."""
    outcomes = list(outcomes)
    rows = [("containerd", "release", "passed", "failed", "skipped", "minutes")]
    rows += [
        (
            *(one.version, one.release, str(one.passed), str(len(one.failed)), str(one.skipped)),
            f"{one.seconds / 60:.1f}",
        )
        for one in outcomes
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    lines += [f"failed on {one.version}: {name}" for one in outcomes for name in one.failed]
    return "\n".join(lines)


def _tier() -> list[str]:
    return [*side_by_side.words(), *_TIER]


def main(words: list[str]) -> int:
    """Runs the named versions, or all of containerd.

    Arguments after `--` replace the arguments of pytest for the tier.
    """
    cut = words.index("--") if "--" in words else len(words)
    versions, arguments = words[:cut] or list(VERSIONS), words[cut + 1 :] or _tier()
    strangers = [version for version in versions if version not in {*VERSIONS, ARM64}]
    if strangers:
        sys.stderr.write(
            f"no containerd {strangers[0]!r}; there are: {', '.join((*VERSIONS, ARM64))}\n"
        )
        return 2
    outcomes = []
    for version in versions:
        try:
            outcomes.append(run_arm64() if version == ARM64 else run(version, arguments))
        except FetchError as error:
            sys.stderr.write(f"containerd {version} cannot be had: {error}\n")
            return 1
    sys.stdout.write(f"\n{table(outcomes)}\n")
    return 1 if any(one.failed for one in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
