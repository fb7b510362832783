"""How `./dev test` spreads the tests over pytest processes (pytest-xdist).

Tests often wait, for daemons and periods of grace: two processes left a third of two cores idle. So
one process more than the machine has cores takes the tests, file by file, and a free process takes
the next file. The files keep their order: the long tiers come first.

No test checks objects of other tests, such as all mounts or processes of the machine. Tests that
share an object run in one process. All embedded hosts keep the addresses of their bridge in one
directory. The start of a Nomad agent takes ten seconds: the acceptance tests of an agent share the
agent.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path, PurePath
from typing import Any

import pytest

BRIDGES = frozenset(
    {
        *("test_012_bridge_ports.py", "test_bridge.py", "test_killed_runs.py", "test_mesh.py"),
        *("test_names.py", "test_network.py", "test_removed_chains.py", "test_run_limits.py"),
    }
)
"""Names of the files with tests in a network of their own, where hosts make bridges."""


def words() -> list[str]:
    """Returns pytest's arguments for the processes."""
    return ["-n", str((os.cpu_count() or 1) + 1), "--no-loadscope-reorder"]


HOSTS = ("embedded", "go-host", "agent")
"""The kinds of hosts of the acceptance tests, in the names of the tests."""


def share(node_id: str) -> str:
    """Returns the name of the tests that run in one process with a test.

    That is the test's file, `bridges`, or the kind of host of an acceptance test.
    """
    file, _, test = node_id.partition("::")
    if PurePath(file).name in BRIDGES:
        return "bridges"
    if file.startswith("tests/acceptance/"):
        return next((host for host in HOSTS if host in test.partition("[")[2]), file)
    return file


def check(file: Path) -> None:
    """Fails a test in a network of its own whose file is not in BRIDGES."""
    assert file.name in BRIDGES, f"add {file.name} to BRIDGES in tests/side_by_side.py"


def scheduler(config: pytest.Config, log: Any) -> Any:
    """Returns pytest-xdist's scheduler of files, with `share` for the files."""
    # Guests lack pytest-xdist, and it has no types.
    by_file: Any = importlib.import_module("xdist.scheduler").LoadScopeScheduling
    shares = type("Shares", (by_file,), {"_split_scope": lambda _, node_id: share(node_id)})
    return shares(config, log)


if __name__ == "__main__":
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *words()])  # noqa: S606 - no shell
