"""`./dev bench --peers`: this driver, docker's, podman's and raw_exec in turns on one agent.

A driver that cannot run on this machine is named with the reason, and the others are measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from proto.release import RELEASE
from tests.bench.peers import measures, page
from tests.bench.peers.agent import COLUMNS, OURS, Field, Peer, field_of
from tests.bench.peers.measures import Results
from tests.bench.progress import Progress
from tests.support.go_build import BuildError

ROOT = Path(__file__).resolve().parents[3]
PERFORMANCE = ROOT / "docs" / "performance.md"
README = ROOT / "README.md"
PAGE_TASKS = 50
"""The number of tasks in the names of the pages' rows."""

_NAMES = {column.strip("`").replace(" ", "-"): column for column in COLUMNS}


class Comparison:
    """The results by column, and the reasons of drivers that were not measured."""

    def __init__(self, field: Field, progress: Progress) -> None:
        self._field = field
        self._progress = progress
        self.results = {peer.column: Results() for peer in field.peers}

    def measure(self, rounds: int, batches: int, tasks: int) -> None:
        """Measures all drivers in turns: single tasks, batch jobs, memory of idle tasks, a log."""
        agent = self._field.agent
        self._turns("first task", 1, lambda peer, _: measures.single(agent, peer, Results()))
        self._turns("single task", rounds, lambda peer, own: measures.single(agent, peer, own))
        self._turns(
            f"batch job of {tasks}",
            batches,
            lambda peer, own: own.batches.append(measures.batch(agent, peer, tasks)),
        )
        self._turns(
            f"memory of {tasks}",
            batches,
            lambda peer, own: own.memory.append(measures.memory(agent, peer, tasks)),
        )

        self._turns(
            "log of 1 GiB",
            batches,
            lambda peer, own: own.log_mb_s.append(measures.log_mb_s(agent, peer)),
        )

    def _turns(self, text: str, rounds: int, step: Callable[[Peer, Results], None]) -> None:
        self._progress.begin(text)
        for number in range(rounds):
            for peer in self._field.peers:
                own = self.results[peer.column]
                if own.failure:
                    continue
                try:
                    step(peer, own)
                    self._clean()
                except (AssertionError, OSError, KeyError) as error:
                    own.failure = f"{text}: {' '.join(str(error).split())[:600]}"
                    with contextlib.suppress(AssertionError, OSError):
                        self._clean()
            self._progress.step(number + 1, rounds)
        failed = [column for column, own in self.results.items() if own.failure]
        self._progress.end(f"failed: {', '.join(failed)}" if failed else "ok")

    def _clean(self) -> None:
        api = self._field.agent.api
        for job in api.jobs():
            api.stop_and_wait(job)
        api.collect_garbage()

    @property
    def missing(self) -> dict[str, str]:
        """Reasons of drivers without all figures, by column."""
        failed = {column: own.failure for column, own in self.results.items() if own.failure}
        return {**self._field.absent, **failed}


def cells(results: Mapping[str, Results], tasks: int) -> dict[str, dict[str, str]]:
    """Returns the cells of the measured rows, in the pages' form."""
    rows: dict[str, Callable[[Results], str | None]] = {
        "Task Setup to the process running, ms (median)": lambda own: _median(own.setup_ms, 0),
        "Killing to Terminated, ms": lambda own: _median(own.kill_ms, 0),
        f"{tasks} batch jobs, submit to all complete, s": lambda own: _median(
            [batch.seconds for batch in own.batches], 1
        ),
        f"CPU s for these {tasks}, all processes": lambda own: _median(
            [batch.cpu_s for batch in own.batches], 1
        ),
        f"memory of the machine for one of {tasks} idle tasks, MB": lambda own: _median(
            [memory.machine for memory in own.memory], 1
        ),
        "part of Nomad's `logmon`, MB": lambda own: _part(own, "logmon"),
        "part of the shim, MB": lambda own: _part(own, "shim"),
        "part of the worker, `docker_logger` or `executor`, MB": lambda own: _part(own, "worker"),
        "1 GiB of log through Nomad, 64 KiB writes, MB/s": lambda own: _median(own.log_mb_s, 0),
    }
    return {
        name: {column: text for column, own in results.items() if (text := cell(own)) is not None}
        for name, cell in rows.items()
    }


def _median(values: Sequence[float], digits: int) -> str | None:
    return f"{statistics.median(values):.{digits}f}" if values else None


def _part(own: Results, kind: str) -> str | None:
    """Returns the cell of a kind of process; None for a driver that has no such process."""
    parts = [memory.parts[kind] for memory in own.memory]
    return _median(parts, 1) if any(parts) else None


def caption(field: Field, missing: Collection[str], arguments: argparse.Namespace) -> str:
    """Returns the paragraph above the table: releases, machine, sizes and missing drivers."""
    options = "".join(f"`{name} = {value}`, " for name, value in arguments.config)
    versions = ", ".join(peer.version for peer in field.peers if peer.version)
    text = (
        f"Release {RELEASE}, {options}with {versions}, all on one agent of Nomad {field.nomad} in"
        f" turns, in one run of `./dev bench --peers`: {os.cpu_count()} cores,"
        f" Linux {platform.release()}, {arguments.rounds} single tasks, {arguments.batches} batch"
        f" jobs, crowds of idle tasks and logs of each driver, medians,"
        " images present, no network."
    )
    return f"{text} Not measured: {', '.join(missing)}." if missing else text


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parses the command line; exits with 2 after a mistake."""
    parser = argparse.ArgumentParser(prog="./dev bench --peers", description=__doc__)
    parser.add_argument(
        "drivers",
        nargs="*",
        metavar="DRIVER",
        help=f"drivers to measure, of {', '.join(_NAMES)}; all without a DRIVER",
    )
    parser.add_argument("--rounds", type=int, default=20, help="single tasks of each driver")
    parser.add_argument(
        "--batches",
        type=int,
        default=3,
        help="batch jobs, crowds of idle tasks, and logs, of each driver",
    )
    parser.add_argument("--tasks", type=int, default=PAGE_TASKS, help="of a batch, and idle tasks")
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        type=_option,
        metavar="KEY=VALUE",
        help="a further option of this driver's plugin block; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="all results for programs, on stdout")
    parser.add_argument(
        "--no-page", action="store_true", help="leave README.md and docs/performance.md alone"
    )
    arguments = parser.parse_args(words)
    if strangers := [name for name in arguments.drivers if name not in _NAMES]:
        parser.error(f"no driver {strangers[0]!r}; there are: {', '.join(_NAMES)}")
    for name in ("rounds", "batches", "tasks"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} {getattr(arguments, name)}: 1 or more is needed")
    if arguments.tasks != PAGE_TASKS and not arguments.no_page:
        parser.error(
            f"--tasks {arguments.tasks}: the pages have figures of {PAGE_TASKS}; add --no-page"
        )
    return arguments


def _option(text: str) -> tuple[str, str]:
    """Returns the name and the value of an option, the value as HCL."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text}: KEY=VALUE is needed, as log_level=debug")
    bare = value in {"true", "false"} or value.isdecimal()
    return name, value if bare else json.dumps(value)


def main(words: Sequence[str]) -> int:
    """Measures, prints, and fills the pages; the exit status is 1 if this driver has no figures."""
    arguments = parse(words)
    chosen = [_NAMES[name] for name in arguments.drivers] or list(COLUMNS)
    try:
        with field_of(chosen, dict(arguments.config)) as field:
            comparison = Comparison(field, Progress(5))
            comparison.measure(arguments.rounds, arguments.batches, arguments.tasks)
    except BuildError as error:
        sys.stderr.write(f"there is no Nomad agent: {error}\n")
        return 1
    found = cells(comparison.results, arguments.tasks)
    if arguments.json:
        results = {column: asdict(own) for column, own in comparison.results.items()}
        whole = {"release": RELEASE, "results": results, "not_measured": comparison.missing}
        sys.stdout.write(json.dumps(whole, indent=1) + "\n")
    else:
        sys.stdout.write(page.formatted(found, chosen))
        for column, reason in comparison.missing.items():
            sys.stdout.write(f"{column}: not measured: {reason}\n")
    if OURS in chosen and (OURS in comparison.missing):
        return 1
    if not arguments.no_page:
        text = caption(field, comparison.missing, arguments)
        PERFORMANCE.write_text(page.filled(PERFORMANCE.read_text(), found, text))
        README.write_text(page.filled(README.read_text(), found))
    return 0
