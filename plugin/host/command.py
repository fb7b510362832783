"""`containerd-driver run JOB`: the command line of the embedded host."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from plugin.host import jobfile, screen
from plugin.host.runner import DRIVER_FAILED, JobRunner
from plugin.host.session import HostSession, default_program
from proto.errors import DriverError

_EPILOG = """\
The exit status is the task's; of several tasks the first that is not 0; 125 when the driver failed.
Ctrl-C stops the tasks as Nomad would (kill_signal, then SIGKILL after kill_timeout); twice kills.
"""


def run(argv: list[str]) -> int:
    """Runs the job that the arguments name and returns the exit status."""
    arguments = _parser().parse_args(argv)
    shown: screen.Screen = screen.choose(as_json=arguments.json, prefix=False)
    if os.geteuid() != 0:
        shown.error("containers need root: run it with sudo")
        return DRIVER_FAILED
    try:
        job = jobfile.load(arguments.job, _pairs(arguments.var, "--var"))
        config = _config(arguments)
    except DriverError as error:
        shown.error(str(error))
        return DRIVER_FAILED
    tasks = sum(group.count * len(group.tasks) for group in job.groups)
    shown = screen.choose(as_json=arguments.json, prefix=tasks > 1)
    if job.ignored:
        shown.note(f"left to a Nomad agent, ignored here: {', '.join(job.ignored)}")
    _log_to_stderr(verbose=arguments.verbose)
    return _run(job, config, arguments, shown)


def _run(
    job: jobfile.Job, config: dict[str, Any], arguments: argparse.Namespace, shown: screen.Screen
) -> int:
    own_root = arguments.alloc_dir is None
    root = arguments.alloc_dir or Path(tempfile.mkdtemp(prefix="containerd-driver-"))
    program = [str(arguments.plugin)] if arguments.plugin else default_program()

    async def work() -> int:
        session = HostSession(program, config)
        return await JobRunner(session, shown, root, keep=arguments.keep).run(job)

    try:
        return asyncio.run(work())
    except DriverError as error:
        shown.error(str(error))
        return DRIVER_FAILED
    finally:
        if arguments.keep:
            shown.note(f"allocation directories kept in {root}")
        elif own_root:
            shutil.rmtree(root, ignore_errors=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="containerd-driver run",
        description="Runs a Nomad job file on this machine, without Nomad.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("job", type=Path, help="job file, HCL or JSON")
    parser.add_argument(
        "--var", action="append", default=[], metavar="NAME=VALUE", help="an HCL variable"
    )
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="an option of the plugin block, such as containerd_address=/run/x.sock",
    )
    parser.add_argument("--alloc-dir", type=Path, help="where allocations lie (default: temporary)")
    parser.add_argument("--keep", action="store_true", help="keep the allocation directories")
    parser.add_argument("--plugin", type=Path, help="plugin executable (default: this driver)")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument("--verbose", action="store_true", help="show the plugin's own log")
    return parser


def _pairs(words: list[str], option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise jobfile.invalid(option, f"{word!r} is not NAME=VALUE")
        pairs[name] = value
    return pairs


def _config(arguments: argparse.Namespace) -> dict[str, Any]:
    """Plugin options; a value that is JSON counts as such, so that blocks can be given too."""
    config: dict[str, Any] = {}
    for name, text in _pairs(arguments.config, "--config").items():
        try:
            config[name] = json.loads(text)
        except ValueError:
            config[name] = text
    return config


def _log_to_stderr(*, verbose: bool) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if verbose else logging.WARNING,
        format="%(levelname)s %(message)s",
    )
    for noisy in ("asyncio", "grpc", "pykka"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
