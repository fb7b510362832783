"""`containerd-driver doctor`: checks the machine, and advises."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from collections.abc import Sequence

from actors.health.doctor import examine
from actors.health.findings import Finding, Verdict, fail, sentence
from actors.model.node import this_node
from actors.model.settings import DriverSettings
from plugin import environment, rootless
from plugin.cli import console, plugin_block
from plugin.texts import one_line
from proto.errors import DriverError

_COLOURS = {
    Verdict.OK: console.GREEN,
    Verdict.WARN: console.YELLOW,
    Verdict.FAIL: console.RED,
}


def run(arguments: Namespace) -> int:
    """Checks the machine, prints the findings and returns the exit status.

    Raises:
        DriverError: stdout cannot be written.
    """
    try:
        settings = plugin_block.settings(arguments.config_file, arguments.config)
    except DriverError as error:
        console.complain(str(error))
        return console.WRONG_OPTIONS
    try:
        rootless.need_root()
    except DriverError as error:
        findings = [fail("user", sentence(error), error.resolution)]
    else:
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
