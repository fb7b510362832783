"""`containerd-driver doctor`: checks the machine, and advises."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

from actors.health.doctor import examine
from actors.health.findings import Finding, Verdict
from actors.model.node import this_node
from actors.model.settings import DriverSettings
from plugin import environment
from plugin.cli import console, plugin_block
from plugin.cli.parser import Parser
from plugin.texts import one_line
from proto.errors import DriverError

_EPILOG = """\
exit status: 0 when tasks can run, with or without warnings; 1 when no task can run; 2 when the
options are wrong
"""
_COLOURS = {
    Verdict.OK: console.GREEN,
    Verdict.WARN: console.YELLOW,
    Verdict.FAIL: console.RED,
}


def run(argv: list[str]) -> int:
    """Checks the machine, prints the findings and returns the exit status.

    Raises:
        DriverError: stdout cannot be written.
    """
    arguments = _parser().parse_args(argv)
    try:
        settings = plugin_block.settings(arguments.config_file, arguments.config)
    except DriverError as error:
        console.complain(str(error))
        return console.WRONG_OPTIONS
    findings = asyncio.run(_examine(settings))
    console.show_rows(findings, table, as_json=arguments.json)
    return int(any(finding.verdict is Verdict.FAIL for finding in findings))


def table(rows: Sequence[Finding], *, colours: bool = False, width: int = 0) -> str:
    """Returns a line for each finding, with the advice below; see `console.Table`."""
    column = max(len(finding.subject) for finding in rows)
    margin = " " * (column + 8)
    lines: list[str] = []
    for finding in rows:
        verdict = console.coloured(
            f"{finding.verdict:4}", _COLOURS[finding.verdict] if colours else ""
        )
        first, *rest = console.wrapped(one_line(finding.text), width - len(margin))
        lines.append(f"{verdict}  {finding.subject:{column}}  {first}")
        lines += [f"{margin}{line}" for line in rest]
        if finding.advice:
            lines += console.remark(one_line(finding.advice), margin, width)
    return "".join(f"{line}\n" for line in lines)


async def _examine(settings: DriverSettings) -> list[Finding]:
    node = this_node(settings)
    try:
        return await examine(node, proxies=environment.proxies())
    finally:
        await node.containerd.close()


def _parser() -> argparse.ArgumentParser:
    parser = Parser("doctor", "Checks whether tasks can run on this machine, and advises.", _EPILOG)
    plugin_block.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    return parser
