"""`./dev bench`: the driver's costs, as ratios and shares within one run.

Absolute times differ between machines and minutes. Every figure stands beside a limit: a ratio to
raw containerd calls of the same run, or a share of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.bench import report
from tests.bench.figures import Measured, table
from tests.bench.peers import compare
from tests.bench.progress import Progress
from tests.bench.rows import at_once, crowd, handshake, latest, layers, logs, pull, run, starts
from tests.bench.setting import Plan, Setting
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.plugin.driver import Driver, launched
from tests.support.registries import images
from tests.support.registries.registry import Registry

Room = Callable[[Setting], Coroutine[Any, Any, Measured]]
# In the order with the least mutual disturbance.
ROOMS: dict[str, Room] = {
    "handshake": handshake.measure,
    "starts": starts.measure,
    "layers": layers.measure,
    "latest": latest.measure,
    "pull": pull.measure,
    "run": run.measure,
    "logs": logs.measure,
    "at_once": at_once.measure,
    "crowd": crowd.measure,
}


def measure(rows: Sequence[str], plan: Plan) -> list[Measured]:
    """Measures the rows one after another, on a containerd and a registry of the bench.

    A row that fails has its reason in the result, and the next row is measured.
    """
    progress = Progress(len(rows))
    with (
        ContainerdDaemon() as containerd,
        Registry() as registry,
        tempfile.TemporaryDirectory() as directory,
    ):
        image = images.build([images.busybox_layer()], {"Cmd": ["/bin/sh"]})
        setting = Setting(
            driver=Driver(containerd, Path(directory)),
            image=images.push(registry.host, "busybox", "1", image),
            registry=registry.host,
            plan=plan,
            progress=progress,
        )
        try:
            # The session of the driver keeps objects of its event loop.
            with asyncio.Runner() as runner:
                runner.run(_pull_once(setting))
                return [_row(row, setting, runner) for row in rows]
        finally:
            setting.driver.close()


def _row(row: str, setting: Setting, runner: asyncio.Runner) -> Measured:
    setting.progress.begin(row)
    try:
        found = replace(runner.run(ROOMS[row](setting)), row=row)
    except Exception as error:  # noqa: BLE001 - the other rows are measured all the same
        reason = " ".join(str(error).split())
        found = Measured(row=row, failure=f"{type(error).__name__}: {reason}")
        setting.driver.containerd.remove_all()
    setting.progress.end("FAILED" if found.failure else "ok" if found.holds else "OVER")
    return found


async def _pull_once(setting: Setting) -> None:
    async with launched(setting.driver):
        await setting.driver.output(setting.image, "true")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parses the command line; exits with 2 after a mistake."""
    usual = Plan()
    rows = "\n".join(
        f"  {row:10} {(room.__doc__ or '').splitlines()[0]}" for row, room in ROOMS.items()
    )
    parser = argparse.ArgumentParser(
        prog="./dev bench",
        description=__doc__,
        epilog=f"rows:\n{rows}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help="rows to measure; all without a ROW")
    parser.add_argument("--rounds", type=int, default=usual.rounds, help="of short steps")
    parser.add_argument("--tasks", type=int, default=usual.tasks, help="at the same time")
    parser.add_argument(
        "--seconds", type=float, default=usual.seconds, help="of each measurement of CPU"
    )
    parser.add_argument(
        "--at-once",
        type=_counts,
        default=usual.at_once,
        metavar="N,N",
        help="starts at the same moment",
    )
    parser.add_argument(
        "--peers",
        action="store_true",
        help="measure other drivers of Nomad too; see ./dev bench --peers --help",
    )
    parser.add_argument("--json", action="store_true", help="results for programs, on stdout")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a report with plots")
    parser.add_argument(
        "--from",
        dest="saved",
        type=Path,
        metavar="FILE",
        help="show the results of an earlier --json, and measure nothing",
    )
    arguments = parser.parse_args(words)
    if strangers := [row for row in arguments.rows if row not in ROOMS]:
        parser.error(f"no row {strangers[0]!r}; there are: {', '.join(ROOMS)}")
    for name in ("rounds", "tasks", "seconds"):
        if getattr(arguments, name) <= 0:
            parser.error(f"--{name} {getattr(arguments, name)}: more than 0 is needed")
    if arguments.html is not None:
        if not os.access(arguments.html.absolute().parent, os.W_OK):
            parser.error(f"{arguments.html.parent} is no directory that can be written")
        if importlib.util.find_spec("matplotlib") is None:
            parser.error("--html needs matplotlib, which ./dev bench --html FILE installs")
    if arguments.saved is not None:
        try:
            arguments.saved = from_json(json.loads(arguments.saved.read_text()))
        except OSError as error:
            parser.error(f"--from {error.filename}: {error.strerror}")
        except (ValueError, KeyError, TypeError) as error:
            parser.error(f"--from {arguments.saved}: no results of ./dev bench --json: {error}")
    return arguments


def as_json(facts: Mapping[str, str], rows: Sequence[Measured]) -> dict[str, Any]:
    """Returns the results for programs, with the facts of the machine."""
    return {"machine": dict(facts), "rows": [row.as_json() for row in rows]}


def from_json(data: Mapping[str, Any]) -> tuple[dict[str, str], list[Measured]]:
    """Returns the arguments of `as_json`; raises KeyError and TypeError as `Measured.from_json`."""
    return dict(data["machine"]), [Measured.from_json(row) for row in data["rows"]]


def _counts(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"{text}: numbers of 1 or more are needed, as in 50,200")
    return tuple(map(int, parts))


def main(words: Sequence[str]) -> int:
    """Measures and prints; the exit status is 1 if a figure exceeds a limit or a row fails."""
    if "--peers" in words:
        return compare.main([word for word in words if word != "--peers"])
    arguments = parse(words)
    if arguments.saved is not None:
        facts, rows = arguments.saved
    else:
        plan = Plan(
            rounds=arguments.rounds,
            tasks=arguments.tasks,
            seconds=arguments.seconds,
            at_once=arguments.at_once,
        )
        facts, rows = report.machine(), measure(arguments.rows or list(ROOMS), plan)
    if arguments.json:
        sys.stdout.write(json.dumps(as_json(facts, rows), indent=1) + "\n")
    else:
        sys.stdout.write(table(rows))
    if arguments.html is not None:
        _write_report(arguments.html, facts, rows)
    return 0 if all(row.holds for row in rows) else 1


def _write_report(file: Path, facts: Mapping[str, str], rows: Sequence[Measured]) -> None:
    # matplotlib is there for a report only.
    from tests.bench import plots

    drawn = [plots.svg(plot) for row in rows for plot in row.plots]
    file.write_text(report.page(facts, rows, drawn))
    sys.stderr.write(f"report: {file}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
