"""`containerd-driver gc`: searches for orphans once, and removes them."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence

from actors.model.node import Node, this_node
from actors.model.settings import DriverSettings
from actors.orphans import peers
from actors.orphans.reconciler import NoTasks, Outcome, Reconciler, SweepPolicy
from actors.processes import idle_launcher
from plugin.cli import console, plugin_block
from plugin.host.run.sweep import Row, as_row, networks_and_files
from plugin.options.readers import parse_duration_s
from plugin.texts import one_line
from proto.errors import Code, DriverError

_HEAD = ("KIND", "NAME", "SINCE", "WHAT", "WHY")
_COLOURS = {
    Outcome.FOUND: console.YELLOW,
    Outcome.REMOVED: console.GREEN,
    Outcome.FAILED: console.RED,
}


def run(arguments: Namespace) -> int:
    """Searches, removes, prints the rows and returns the exit status.

    Raises:
        DriverError: no search was possible, so no object was removed; or stdout cannot be written.
    """
    try:
        settings = plugin_block.settings(arguments.config_file, arguments.config)
        grace_s = _grace_s(arguments.grace, settings)
    except DriverError as error:
        console.complain(str(error))
        return console.WRONG_OPTIONS
    rows = asyncio.run(_sweep(settings, arguments.node, grace_s=grace_s, dry_run=arguments.dry_run))
    console.show_rows(rows, table, as_json=arguments.json)
    found = any(row.outcome is Outcome.FOUND for row in rows)
    if arguments.dry_run and found and not arguments.json:
        console.report("without --dry-run the orphans are removed")
    return int(any(row.outcome is Outcome.FAILED for row in rows))


def table(rows: Sequence[Row], *, colours: bool = False, width: int = 0) -> str:
    """Returns a line for each row, with an error below; see `console.Table`.

    If a line would be too wide, each row becomes a paragraph.
    """
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
            padded[3] = console.coloured(padded[3], _COLOURS.get(row.outcome, ""))
        lines.append("  ".join(padded).rstrip())
        if row is not None and row.error:
            lines.append(f"{'':{widths[0]}}  → {row.error}")
    return "".join(f"{line}\n" for line in lines)


def _plain(row: Row) -> Row:
    """Returns the row with plain texts: jobs and images choose names."""
    name, why, error = map(one_line, (row.name, row.why, row.error))
    return dataclasses.replace(row, name=name, why=why, error=error)


def _paragraph(row: Row, *, colours: bool, width: int) -> Iterator[str]:
    yield f"{row.kind} {row.name}"
    first, *rest = console.wrapped(f"{row.outcome}: {row.why}, since {_date(row.since)}", width - 2)
    if colours:
        colour = _COLOURS.get(row.outcome, "")
        first = first.replace(row.outcome, console.coloured(row.outcome, colour), 1)
    yield from (f"  {line}" for line in (first, *rest))
    if row.error:
        yield from console.remark(row.error, "  ", width)


async def _sweep(
    settings: DriverSettings, given_up: list[str], *, grace_s: float, dry_run: bool
) -> list[Row]:
    node = this_node(settings)
    await asyncio.to_thread(_check, node, given_up)
    policy = SweepPolicy(grace_s=grace_s, dry_run=dry_run, given_up=frozenset(given_up))
    reconciler = Reconciler(node, NoTasks(), policy)
    try:
        results = await reconciler.sweep_once()
        rows = await networks_and_files(node, dry_run=dry_run)
    finally:
        await node.containerd.close()
    if (idle := await asyncio.to_thread(idle_launcher.pid, node.state_dir)) is not None:
        console.report(
            f"the worker launcher (pid {idle}) is idle: {node.state_dir} has no live plugin, run or"
            f" task; an idle launcher ends after {idle_launcher.MINUTES} minutes"
        )
    for lost in set(given_up).difference(result.resource.owner.owner for result in results):
        console.report(f"--node {lost}: no object belongs to a node with this id")
    return [*map(as_row, results), *rows]


def _check(node: Node, given_up: list[str]) -> None:
    """Raises DriverError if the plugin of a given-up node lives: the plugin knows its tasks."""
    for peer in peers.peers(node.state_dir):
        nodes: list[str] = peer.published.get("nodes") or []
        pid = peer.published.get("pid")
        for lost in given_up if peer.alive else ():
            if lost in nodes:
                raise DriverError(
                    f"--node {lost}: a plugin of this node is running, pid {pid}",
                    resolution="the plugin removes orphans of its node, see gc.dangling_containers",
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
