"""`containerd-driver gc`: what no live task owns, found and removed once."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import sys
import time
from collections.abc import Iterator, Sequence

from actors.model.node import Node, this_node
from actors.model.settings import DriverSettings
from actors.orphans import peers
from actors.orphans.reconciler import NobodysTasks, Outcome, Reconciler
from actors.processes import idle_launcher
from plugin.cli import console, plugin_block
from plugin.cli.parser import Parser
from plugin.host.run import sweep as run_sweep
from plugin.host.run.sweep import Row
from plugin.options.readers import parse_duration_s
from plugin.texts import one_line
from proto.errors import Code, DriverError

_EPILOG = """\
It removes what runs of `containerd-driver run` left that were killed, and what only a plugin
needed that is gone. A Nomad agent may come back for its tasks however long it is away: what is of a
node is only shown, unless --node says that this node will not come back. A plugin that lives looks
for orphans of its node by itself, see gc.dangling_containers in its configuration.

exit status: 0; 1 when something could not be removed, or nothing could be told; 2 when the options
are wrong
"""
_HEAD = ("KIND", "NAME", "SINCE", "WHAT", "WHY")
_COLOURS = {
    Outcome.FOUND: "\033[33m",
    Outcome.REMOVED: "\033[32m",
    Outcome.FAILED: "\033[1;31m",
}
_PLAIN = "\033[0m"


def run(argv: list[str]) -> int:
    """Looks, removes, prints and returns the exit status.

    Raises:
        DriverError: nothing could be told, so nothing was removed.
    """
    arguments = _parser().parse_args(argv)
    try:
        settings = plugin_block.settings(arguments.config_file, arguments.config)
        grace_s = _grace_s(arguments.grace, settings)
    except DriverError as error:
        console.complain(str(error))
        return console.WRONG_OPTIONS
    if os.geteuid() != 0:
        raise DriverError("tasks and their files are root's", resolution="run it with sudo")
    rows = asyncio.run(_sweep(settings, arguments.node, grace_s=grace_s, dry_run=arguments.dry_run))
    if arguments.json:
        console.show(console.json_lines(dataclasses.asdict(row) for row in rows))
    else:
        colours = sys.stdout.isatty()
        console.show(table(rows, colours=colours, width=console.terminal_width()))
        if arguments.dry_run and any(row.outcome is Outcome.FOUND for row in rows):
            console.report("the orphans are removed without --dry-run")
    return int(any(row.outcome is Outcome.FAILED for row in rows))


def table(rows: Sequence[Row], *, colours: bool = False, width: int = 0) -> str:
    """One line for each thing, what failed below it; a paragraph each where that is too wide."""
    if not rows:
        return "nothing is left over\n"
    rows = [_plain(row) for row in rows]
    cells = [_HEAD, *((row.kind, row.name, _date(row.since), row.outcome, row.why) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEAD))]
    if 0 < width < sum(widths) + 2 * (len(widths) - 1):
        lines = [line for row in rows for line in _paragraph(row, colours=colours, width=width)]
        return "".join(f"{line}\n" for line in lines)
    lines = []
    for line, row in zip(cells, (None, *rows), strict=True):
        padded = [f"{text:{width}}" for text, width in zip(line, widths, strict=True)]
        if row is not None and colours:
            padded[3] = _coloured(row.outcome, padded[3])
        lines.append("  ".join(padded).rstrip())
        if row is not None and row.error:
            lines.append(f"{'':{widths[0]}}  → {row.error}")
    return "".join(f"{line}\n" for line in lines)


def _plain(row: Row) -> Row:
    """Returns a row for a terminal: tasks have chosen the names in it."""
    name, why, error = map(one_line, (row.name, row.why, row.error))
    return dataclasses.replace(row, name=name, why=why, error=error)


def _paragraph(row: Row, *, colours: bool, width: int) -> Iterator[str]:
    yield f"{row.kind} {row.name}"
    first, *rest = console.wrapped(f"{row.outcome}: {row.why}, since {_date(row.since)}", width - 2)
    if colours:
        first = first.replace(row.outcome, _coloured(row.outcome, row.outcome), 1)
    yield from (f"  {line}" for line in (first, *rest))
    if row.error:
        first, *rest = console.wrapped(row.error, width - 4)
        yield from (f"  → {first}", *(f"    {line}" for line in rest))


def _coloured(outcome: Outcome, text: str) -> str:
    return f"{_COLOURS[outcome]}{text}{_PLAIN}" if outcome in _COLOURS else text


async def _sweep(
    settings: DriverSettings, given_up: list[str], *, grace_s: float, dry_run: bool
) -> list[Row]:
    node = this_node(settings)
    await asyncio.to_thread(_check, node, given_up)
    reconciler = Reconciler(
        node, NobodysTasks(), given_up=given_up, grace_s=grace_s, dry_run=dry_run
    )
    try:
        findings = await reconciler.sweep_once()
        rows = await run_sweep.networks_and_files(node, dry_run=dry_run)
    finally:
        await node.containerd.close()
    if (idle := await asyncio.to_thread(idle_launcher.pid, node.state_dir)) is not None:
        console.report(
            f"the launcher of task workers (pid {idle}) has nothing to do: no plugin, run or task"
            f" lives in {node.state_dir}; it ends by itself after {idle_launcher.MINUTES} minutes"
        )
    for lost in set(given_up).difference(finding.thing.mark.owner for finding in findings):
        console.report(f"--node {lost}: nothing here is of a node with this id")
    return [*map(run_sweep.row, findings), *rows]


def _check(node: Node, given_up: list[str]) -> None:
    """Refuses to give up a node whose plugin lives: it knows better."""
    for peer in peers.peers(node.state_dir):
        nodes: list[str] = peer.says.get("nodes") or []
        for lost in given_up if peer.alive else ():
            if lost in nodes:
                raise DriverError(
                    f"--node {lost}: a plugin of this node lives, pid {peer.says.get('pid')}",
                    resolution="it looks for orphans by itself, see gc.dangling_containers",
                    code=Code.PRECONDITION,
                )


def _grace_s(text: str, settings: DriverSettings) -> float:
    if not text:
        return settings.gc_dangling_grace_s
    try:
        return parse_duration_s(text)
    except ValueError as error:
        raise DriverError(f"--grace: {error}", code=Code.INVALID) from error


def _date(since: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(since))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "gc",
        "Removes what no live task owns: containers, snapshots, leases, workers, state directories,"
        " networks of runs.",
        _EPILOG,
    )
    plugin_block.add_arguments(parser)
    add = parser.add_argument
    add("--dry-run", action="store_true", help="only say what would be removed")
    add(
        "--node",
        action="append",
        default=[],
        metavar="ID",
        help="a Nomad node that will not come back, named as in WHY: its tasks are stopped and"
        " removed",
    )
    add(
        "--grace",
        default="",
        metavar="TIME",
        help="leave what is younger (default: gc.dangling_containers.creation_grace, 5m)",
    )
    add("--json", action="store_true", help="one JSON object per line")
    return parser
