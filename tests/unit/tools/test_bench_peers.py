"""The comparison with other drivers: parsers, cells, and the tables of the pages."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from proto.release import RELEASE
from tests.bench.peers import compare, measures, page
from tests.bench.peers.agent import (
    COLUMNS,
    DOCKER,
    OURS,
    PODMAN,
    RAW_EXEC,
    Field,
    Peer,
    podman_plugin,
)
from tests.bench.peers.daemons import AbsentError, Dockerd
from tests.bench.peers.measures import Batch, Memory, Results
from tests.bench.progress import Progress

PAGE = f"""\
# Page

{page.BEGIN}
Old text.

| figure | this driver | docker | Go driver | `raw_exec` |
| --- | --- | --- | --- | --- |
| first | 1 | 2 | 3 | 4 |
| second | 5 | 6 | 7 | 8 |
{page.END}

| first | other | table |
"""


def test_a_measured_row_gets_new_cells_and_a_dash_for_a_driver_without_a_figure() -> None:
    text = page.filled(PAGE, {"first": {OURS: "9", RAW_EXEC: "10"}, "third": {OURS: "0"}}, "New.")
    header, rows = page.parse(text)
    assert header == ["figure", "this driver", "docker", "Go driver", "`raw_exec`"]
    assert rows == {"first": ["9", "–", "3", "10"], "second": ["5", "6", "7", "8"]}
    assert "\nNew.\n\n| figure |" in text
    assert "Old text" not in text
    assert text.startswith(f"# Page\n\n{page.BEGIN}\n")
    assert text.endswith(f"{page.END}\n\n| first | other | table |\n")


def test_a_page_keeps_its_text_without_a_new_one() -> None:
    assert page.filled(PAGE, {}) == PAGE


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("no marker", "the page has no table between"),
        (f"{page.BEGIN}\n| a |\n", "the page has no table between"),
        (f"{page.BEGIN}\ntext\n{page.END}", "no table follows"),
        (f"{page.BEGIN}\n| a | b |\n| - | - |\n| c |\n{page.END}", "'c' has 1 cells, the header 2"),
    ],
)
def test_a_page_without_a_whole_table_is_refused(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        page.parse(text)


@pytest.mark.parametrize("path", [compare.PERFORMANCE, compare.README], ids=lambda path: path.name)
def test_every_row_of_the_pages_is_one_that_the_comparison_measures(path: Path) -> None:
    header, rows = page.parse(path.read_text())
    measured = compare.cells({}, compare.PAGE_TASKS)
    assert set(rows) <= set(measured)
    assert header[1] == OURS
    assert set(header[1:]) - {"Go driver"} <= set(COLUMNS)


def test_the_page_about_performance_has_all_rows_and_drivers() -> None:
    header, rows = page.parse(compare.PERFORMANCE.read_text())
    assert list(rows) == list(compare.cells({}, compare.PAGE_TASKS))
    assert set(COLUMNS) < set(header)


def test_cells_are_medians_and_leave_out_what_was_not_measured() -> None:
    whole = Results(
        setup_ms=[90.4, 100.4, 300.0],
        kill_ms=[30.0],
        batches=[Batch(seconds=5.0, cpu_s=9.0), Batch(seconds=7.0, cpu_s=10.0)],
        memory=[
            Memory(machine=machine, parts={"logmon": 14.6, "shim": shim, "worker": 0.0})
            for machine, shim in ((35.0, 2.6), (18.04, 9.0), (3.0, 0.0))
        ],
        log_mb_s=[578.4, 900.0, 400.0],
    )
    found = compare.cells({OURS: whole, DOCKER: Results(setup_ms=[200.0])}, 50)
    assert list(found.values()) == [
        {OURS: "100", DOCKER: "200"},
        {OURS: "30"},
        {OURS: "6.0"},
        {OURS: "9.5"},
        {OURS: "18.0"},
        {OURS: "14.6"},
        {OURS: "2.6"},
        {},
        {OURS: "578"},
    ]
    shown = page.formatted(found, [OURS, DOCKER]).splitlines()
    assert shown[0].split() == ["this", "driver", "docker"]
    assert shown[1].split()[-2:] == ["100", "200"]
    assert shown[2].split()[-2:] == ["30", "–"]


def test_the_machine_s_cpu_is_all_but_idle_and_waiting() -> None:
    hertz = os.sysconf("SC_CLK_TCK")
    ticks = [hertz * part for part in (1, 2, 3, 1000, 1000, 4, 5, 0, 0, 0)]
    stat = f"cpu  {' '.join(map(str, ticks))}\ncpu0 1 1 1 1 1 1 1 0 0 0\n"
    assert measures.machine_cpu_s(stat) == 15.0


def test_available_memory_is_read_in_mib() -> None:
    text = "MemTotal: 100 kB\nMemFree:  200 kB\nMemAvailable:   2048 kB\n"
    assert measures.available_mb(text) == 2.0
    with pytest.raises(AssertionError, match="no MemAvailable"):
        measures.available_mb("MemTotal: 100 kB\n")


def test_the_first_event_of_a_kind_counts() -> None:
    events = [{"Type": "Killing", "Time": 5}, {"Type": "Killing", "Time": 9}]
    assert measures.event_ns(events, "Killing") == 5
    with pytest.raises(AssertionError, match="no event 'Terminated'"):
        measures.event_ns(events, "Terminated")


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("nomad\n/bin/nomad\0logmon\0", "logmon"),
        ("containerd-shim\n/usr/bin/containerd-shim-runc-v2\0-namespace\0", "shim"),
        ("conmon\n/usr/bin/conmon\0--api-version\0", "shim"),
        ("cd-worker\npython3\0launcher.py\0", "worker"),
        ("nomad\n/bin/nomad\0docker_logger\0", "worker"),
        ("nomad\n/bin/nomad\0executor\0{}\0", "worker"),
        ("sh\n/bin/sh\0-c\0", None),
    ],
)
def test_a_process_beside_a_task_is_known_by_its_name(line: str, kind: str | None) -> None:
    assert measures.kind_of(line) == kind


def test_an_absent_peer_says_how_to_get_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("NOMAD_DRIVER_PODMAN", raising=False)
    with pytest.raises(AbsentError, match=r"dockerd is not installed: apt-get install .*docker.io"):
        Dockerd("127.0.0.1:5000/x:1")
    with pytest.raises(AbsentError, match=r"not on PATH\. Build the program from github"):
        podman_plugin()
    monkeypatch.setenv("NOMAD_DRIVER_PODMAN", "/nonexistent/driver")
    with pytest.raises(AbsentError, match="NOMAD_DRIVER_PODMAN=/nonexistent/driver is no program"):
        podman_plugin()


def test_the_caption_names_releases_options_and_missing_drivers() -> None:
    ours = Peer(column=OURS, driver="x", block="", version="containerd 1.6")
    field = Field(agent=cast("Any", None), nomad="1.4.3", peers=[ours], absent={})
    words = [
        "--config",
        "allow_privileged=false",
        "--config",
        "log_collection=driver",
        "--rounds",
        "7",
    ]
    text = compare.caption(field, [DOCKER], compare.parse(words))
    assert (
        f'{RELEASE}, `allow_privileged = false`, `log_collection = "driver"`, with containerd'
        in text
    )
    assert "one agent of Nomad 1.4.3" in text
    assert "7 single tasks" in text
    assert text.endswith("Not measured: docker.")


class Api:
    """An agent's API that counts its cleanings."""

    def __init__(self) -> None:
        self.cleaned = 0

    def jobs(self) -> list[str]:
        return []

    def collect_garbage(self) -> None:
        self.cleaned += 1


def test_a_driver_that_fails_is_named_and_the_others_are_measured() -> None:
    api = Api()
    agent: Any = SimpleNamespace(api=api)
    peers = [Peer(column=column, driver=column, block="") for column in (OURS, DOCKER)]
    field = Field(agent=agent, nomad="1.4.3", peers=peers, absent={PODMAN: "no podman"})
    comparison = compare.Comparison(field, Progress(1, io.StringIO()))

    def step(peer: Peer, own: Results) -> None:
        assert peer.column == OURS, "docker\nis away"
        own.kill_ms.append(1.0)

    comparison._turns("stop", 3, step)
    assert comparison.results[OURS].kill_ms == [1.0, 1.0, 1.0]
    assert comparison.missing[PODMAN] == "no podman"
    assert comparison.missing[DOCKER].startswith("stop: docker is away")
    assert OURS not in comparison.missing
    assert api.cleaned == 4
    assert cell_columns(comparison.results) == {OURS}


def cell_columns(results: Mapping[str, Results]) -> set[str]:
    """Returns the columns that have a cell in a row."""
    return {column for row in compare.cells(results, 50).values() for column in row}


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["rkt"], "no driver 'rkt'; there are: this-driver, docker, podman, raw_exec"),
        (["--batches", "0"], "--batches 0: 1 or more is needed"),
        (["--config", "log_level"], "log_level: KEY=VALUE is needed"),
        (["--tasks", "5"], "--tasks 5: the pages have figures of 50; add --no-page"),
    ],
)
def test_a_mistake_is_told_before_a_daemon_starts(
    words: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        compare.parse(words)
    assert ended.value.code == 2
    assert error in capsys.readouterr().err
