"""`containerd-driver convert JOB`: rewrites a job of Nomad's docker or podman driver."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from plugin.cli import console
from plugin.convert.findings import Finding, Kind, report
from plugin.convert.job_file import converted
from plugin.convert.report import SOURCES
from plugin.host.job.text import read_text
from plugin.texts import did_you_mean
from proto.errors import Code, DriverError

_STDIN = Path("-")


def run(arguments: Namespace) -> int:
    """Writes the converted file and the report; returns the exit status.

    Raises:
        DriverError: the file cannot be read, parsed or written.
    """
    wrong = _wrong(arguments)
    if wrong:
        console.complain(wrong)
        return console.WRONG_OPTIONS
    job: Path = arguments.job
    name = "standard input" if job == _STDIN else job.name
    before = read_text(job, exact=True)
    after, findings = converted(name, before, arguments.driver or SOURCES)
    lines = _report(name, findings, as_json=arguments.json)
    lost = any(finding.kind is Kind.LOST for finding in findings)
    if arguments.check:
        console.show("".join(f"{line}\n" for line in lines))
        return int(lost)
    for line in lines:
        console.report(line)
    if arguments.in_place:
        _replace(job, after)
    elif arguments.output:
        _write(arguments.output, after)
    else:
        console.show(after)
    return int(lost)


def _wrong(arguments: Namespace) -> str:
    """Returns the problem of the arguments; empty for none."""
    for driver in arguments.driver:
        if driver not in SOURCES:
            hint = did_you_mean(driver, SOURCES)
            return f"--driver {driver}: is not one of {', '.join(SOURCES)}{hint}"
    targets = (arguments.check, arguments.in_place, arguments.output is not None)
    if sum(targets) > 1:
        return "--check, --in-place and --output exclude each other"
    if arguments.in_place and arguments.job == _STDIN:
        return "--in-place needs a file, not standard input"
    return ""


def _report(name: str, findings: Sequence[Finding], *, as_json: bool) -> list[str]:
    """Returns the lines of the report."""
    if as_json:
        return console.json_lines([dataclasses.asdict(item) for item in findings]).splitlines()
    return report(name, findings)


def _write(path: Path, text: str) -> None:
    try:
        path.write_bytes(text.encode())
    except OSError as error:
        raise _unwritable(path, error) from error


def _replace(path: Path, text: str) -> None:
    """Replaces a file at once: a full disk leaves the old file."""
    target = path.resolve()
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
            os.fchmod(file.fileno(), target.stat().st_mode & 0o7777)
        Path(temporary).replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> DriverError:
    return DriverError(f"{path}: cannot be written: {error.strerror}", code=Code.INVALID)
