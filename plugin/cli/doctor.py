"""`containerd-driver doctor`: what on this machine will not work, and what to do about it."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys

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
exit status: 0 when tasks can run, warnings or not; 1 when none can; 2 when the options are wrong
"""
_COLOURS = {Verdict.OK: "\033[32m", Verdict.WARN: "\033[33m", Verdict.FAIL: "\033[1;31m"}
_PLAIN = "\033[0m"


def run(argv: list[str]) -> int:
    """Looks, prints and returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        settings = plugin_block.settings(arguments.config_file, arguments.config)
    except DriverError as error:
        console.complain(str(error))
        return console.WRONG_OPTIONS
    findings = asyncio.run(_examine(settings))
    if arguments.json:
        text = console.json_lines(dataclasses.asdict(finding) for finding in findings)
    else:
        text = table(findings, colours=sys.stdout.isatty(), width=console.terminal_width())
    console.show(text)
    return int(any(finding.verdict is Verdict.FAIL for finding in findings))


def table(findings: list[Finding], *, colours: bool = False, width: int = 0) -> str:
    """One line for each finding, its advice below it; with a width, lines no longer than that."""
    column = max(len(finding.subject) for finding in findings)
    margin = " " * (column + 8)
    lines: list[str] = []
    for finding in findings:
        verdict = f"{finding.verdict:4}"
        if colours:
            verdict = f"{_COLOURS[finding.verdict]}{verdict}{_PLAIN}"
        first, *rest = console.wrapped(one_line(finding.text), width - len(margin))
        lines.append(f"{verdict}  {finding.subject:{column}}  {first}")
        lines += [f"{margin}{line}" for line in rest]
        if finding.advice:
            first, *rest = console.wrapped(one_line(finding.advice), width - len(margin) - 2)
            lines.append(f"{margin}→ {first}")
            lines += [f"{margin}  {line}" for line in rest]
    return "".join(f"{line}\n" for line in lines)


async def _examine(settings: DriverSettings) -> list[Finding]:
    node = this_node(settings)
    try:
        return await examine(node, proxies=environment.proxies())
    finally:
        await node.containerd.close()


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "doctor", "Says what on this machine will not work, and what to do about it.", _EPILOG
    )
    plugin_block.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    return parser
