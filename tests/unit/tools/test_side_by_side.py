"""The spread of tests over processes: by file, with the tests of bridges in one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import side_by_side

pytest_plugins = ("pytester",)
TESTS = Path(side_by_side.__file__).parent
STORY = """\
import os
import pytest

@pytest.mark.parametrize("number", range(6))
def test_story(number):
    with open(os.environ["SAID"], "a") as said:
        said.write(f"{os.getpid()} {os.path.basename(__file__)}\\n")
"""
PLUGIN = """\
from tests.side_by_side import scheduler as pytest_xdist_make_scheduler
"""


def test_each_file_of_bridges_exists() -> None:
    assert {path.name for path in TESTS.rglob("test_*.py")} >= side_by_side.BRIDGES


def test_a_file_with_a_bridge_that_is_not_listed_is_refused() -> None:
    side_by_side.check(TESTS / "test_bridge.py")
    with pytest.raises(AssertionError, match=r"add test_life\.py to BRIDGES"):
        side_by_side.check(TESTS / "test_life.py")


def test_tests_of_a_file_and_files_of_bridges_run_in_one_process(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = ("test_one", "test_two", "test_three", "test_bridge", "test_names", "test_network")
    pytester.makeconftest(PLUGIN)
    pytester.makepyfile(**dict.fromkeys(files, STORY))
    said = pytester.path / "said"
    monkeypatch.setenv("SAID", str(said))
    monkeypatch.setenv("PYTHONPATH", str(TESTS.parent))
    pytester.runpytest_subprocess("-n", "3").assert_outcomes(passed=36)
    processes: dict[str, set[str]] = {}
    for line in said.read_text().splitlines():
        process, file = line.split()
        processes.setdefault(file, set()).add(process)
    assert {len(used) for used in processes.values()} == {1}
    assert len(set().union(*(processes[f"{file}.py"] for file in files[3:]))) == 1
    assert len(set().union(*processes.values())) > 1


@pytest.mark.parametrize(
    ("node_id", "shared"),
    [
        ("tests/acceptance/test_001_redis.py::test_a_server[agent]", "agent"),
        ("tests/acceptance/test_002_signal.py::test_a_signal[go-host-SIGUSR1]", "go-host"),
        ("tests/acceptance/test_012_bridge_ports.py::test_a_port[agent]", "bridges"),
        ("tests/nomad/test_host.py::test_a_task[agent]", "tests/nomad/test_host.py"),
        ("tests/acceptance/test_001_redis.py::test_agent", "tests/acceptance/test_001_redis.py"),
    ],
)
def test_acceptance_tests_share_the_process_of_their_host(node_id: str, shared: str) -> None:
    assert side_by_side.share(node_id) == shared
