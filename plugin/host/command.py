"""`containerd-driver run JOB`: the command line of the embedded host."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from actors.node import Node, this_node
from plugin import open_files
from plugin.host import (
    host_options,
    jobfile,
    plugin_block,
    run_sweep,
    screen,
    service_manager,
    usage,
)
from plugin.host.host_options import HostOptions
from plugin.host.run_record import RunRecord
from plugin.host.runner import JobRunner
from plugin.host.service_manager import ServiceManager
from plugin.host.session import HostSession, default_program
from plugin.host.task_run import DRIVER_FAILED
from proto.errors import DriverError
from proto.shortage import exhausted

_EPILOG = """\
exit status:
  the task's own; of several tasks the first that is not 0; 128+n for a task that signal n ended;
  125 when the driver failed or output was lost, 130 when Ctrl-C came before anything ran, 2 when
  the options are wrong

Ctrl-C stops the tasks as Nomad would (kill_signal, SIGKILL after kill_timeout), a second one kills
them, a third one leaves. A task that ends is not restarted: that is for a Nomad agent to do.
"""


def run(argv: list[str]) -> int:
    """Runs the job that the arguments name and returns the exit status."""
    arguments = _parser().parse_args(argv)
    _log_to_stderr(verbose=arguments.verbose)
    shown: screen.Screen = screen.choose(as_json=arguments.json, prefix=False)
    try:
        job = jobfile.load(arguments.job, plugin_block.pairs(arguments.var, "--var"))
        config = plugin_block.read(arguments.config_file, arguments.config)
        host = host_options.read(arguments)
        service = service_manager.find(job.task_count)
    except DriverError as error:
        shown.error(str(error))
        return DRIVER_FAILED
    if os.geteuid() != 0 and arguments.plugin is None:
        shown.error("containers need root: run it with sudo")
        return DRIVER_FAILED
    shown = screen.choose(as_json=arguments.json, prefix=job.task_count > 1)
    if job.ignored:
        shown.note(f"left to a Nomad agent, ignored here: {', '.join(job.ignored)}")
    open_files.allow_all()
    try:
        status = _run(job, config, host, service, arguments, shown)
    except DriverError as error:
        shown.error(str(error))
        status = DRIVER_FAILED
    finally:
        whole = shown.close()
    # What is taken for a good end must not have lost what the tasks said.
    return status if whole else status or DRIVER_FAILED


def _run(
    job: jobfile.Job,
    config: dict[str, Any],
    host: HostOptions,
    service: ServiceManager,
    arguments: argparse.Namespace,
    shown: screen.Screen,
) -> int:
    node = _node(arguments)
    own = arguments.alloc_dir is None
    root = _own_root() if own else arguments.alloc_dir.absolute()
    program = [str(arguments.plugin)] if arguments.plugin else default_program()

    async def work() -> int:
        if node is not None:
            await run_sweep.before_a_run(node, shown.note)
            await node.containerd.close()
        record = RunRecord(
            node,
            shown.note,
            cni=host.cni_directories,
            root=str(root),
            own_root=own,
            keep=arguments.keep,
        )
        runner = JobRunner(
            HostSession(program, config),
            shown,
            root,
            host,
            service,
            record,
            keep=arguments.keep,
            stats=arguments.stats,
        )
        return await runner.run(job)

    try:
        return asyncio.run(work())
    except DriverError as error:
        shown.error(str(error))
        return DRIVER_FAILED
    finally:
        if arguments.keep:
            shown.note(f"allocation directories kept in {root}")
        elif own:
            # Not empty where a container could not be removed: its directory stays for it.
            with contextlib.suppress(OSError):
                root.rmdir()


def _own_root() -> Path:
    """A new directory for the run's allocations.

    Raises:
        DriverError: there is no room for it.
    """
    try:
        return Path(tempfile.mkdtemp(prefix="containerd-driver-")).absolute()
    except OSError as error:
        raise exhausted("no directory can be made for the allocations", error) from error


def _node(arguments: argparse.Namespace) -> Node | None:
    """Where the plugin's tasks will be; None where another driver's options do not say.

    Raises:
        DriverError: code INVALID; this driver would refuse its options.
    """
    try:
        return this_node(plugin_block.settings(arguments.config_file, arguments.config))
    except DriverError:
        if arguments.plugin is None:
            raise
        return None


def _parser() -> argparse.ArgumentParser:
    parser = usage.Parser(
        prog="containerd-driver run",
        description="Runs a Nomad job file on this machine, without Nomad.",
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add("job", type=Path, help="job file, HCL or JSON; - reads stdin")
    add("--var", action="append", default=[], metavar="NAME=VALUE", help="an HCL variable")
    plugin_block.add_arguments(parser)
    host_options.add_arguments(parser)
    add("--alloc-dir", type=Path, metavar="DIR", help="where allocations lie (default: temporary)")
    add("--keep", action="store_true", help="keep the allocation directories")
    add("--stats", action="store_true", help="show each second what the tasks use")
    add("--json", action="store_true", help="one JSON object per line")
    add("--plugin", type=Path, metavar="PATH", help="plugin executable (default: this driver)")
    add("--verbose", action="store_true", help="show the plugin's own log")
    return parser


def _log_to_stderr(*, verbose: bool) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        # What the plugin warns of reaches the user as an event or as the error of a call.
        level=logging.DEBUG if verbose else logging.ERROR,
        format="%(asctime)s %(levelname)s %(message)s" if verbose else "%(levelname)s %(message)s",
    )
    for noisy in ("asyncio", "grpc", "pykka"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
