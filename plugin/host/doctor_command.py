"""`containerd-driver doctor`: what on this machine will not work, and what to do about it."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import sys

from actors import doctor
from actors.doctor import Finding, Verdict
from actors.node import this_node
from actors.settings import DriverSettings
from plugin.host import plugin_block, usage
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
        sys.stderr.write(f"error: {error}\n")
        return 2
    findings = asyncio.run(_examine(settings))
    if arguments.json:
        for finding in findings:
            sys.stdout.write(f"{json.dumps(dataclasses.asdict(finding))}\n")
    else:
        sys.stdout.write(table(findings, colours=sys.stdout.isatty()))
    return int(any(finding.verdict is Verdict.FAIL for finding in findings))


def table(findings: list[Finding], *, colours: bool) -> str:
    """One line for each finding, its advice below it."""
    width = max(len(finding.subject) for finding in findings)
    lines: list[str] = []
    for finding in findings:
        verdict = f"{finding.verdict:4}"
        if colours:
            verdict = f"{_COLOURS[finding.verdict]}{verdict}{_PLAIN}"
        lines.append(f"{verdict}  {finding.subject:{width}}  {finding.text}")
        if finding.advice:
            lines.append(f"{'':4}  {'':{width}}  → {finding.advice}")
    return "".join(f"{line}\n" for line in lines)


async def _examine(settings: DriverSettings) -> list[Finding]:
    node = this_node(settings)
    try:
        return await doctor.examine(node)
    finally:
        await node.containerd.close()


def _parser() -> argparse.ArgumentParser:
    parser = usage.Parser(
        prog="containerd-driver doctor",
        description="Says what on this machine will not work, and what to do about it.",
        epilog=_EPILOG,
    )
    plugin_block.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    return parser
