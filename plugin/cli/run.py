"""`containerd-driver run JOB`: the command line of the embedded host."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.model.node import Node, this_node
from plugin.cli import console, host_arguments, plugin_block
from plugin.cli.parser import Parser
from plugin.cli.screens import choose
from plugin.host.agent.session import HostSession, default_program
from plugin.host.job import jobfile
from plugin.host.run import screen
from plugin.host.run.job_runner import JobRunner
from plugin.host.run.machine import HostOptions
from plugin.host.run.record import RunRecord
from plugin.host.run.sweep import before_a_run
from plugin.host.run.systemd import ServiceManager, find
from plugin.host.run.task_runner import DRIVER_FAILED
from plugin.process import raise_file_limit
from plugin.texts import indented
from proto.errors import DriverError
from proto.exhaustion import exhausted

_EPILOG = """\
exit status: the task's own; of several tasks the first that is not 0; 128+n for a task that
signal n ended; 125 when the driver failed, the job is wrong or output was lost; 130 when Ctrl-C
came before anything ran; 2 when the options are wrong

Ctrl-C stops the tasks as Nomad would (kill_signal, SIGKILL after kill_timeout), a second one kills
them, a third one leaves. A task that ends is not restarted: that is for a Nomad agent to do.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """What the command line says, read and checked. node: see `_node`."""

    words: argparse.Namespace
    variables: Mapping[str, str]
    config: dict[str, Any]
    host: HostOptions
    node: Node | None


def run(argv: list[str]) -> int:
    """Runs the job that the arguments name and returns the exit status."""
    words = _parser().parse_args(argv)
    _log_to_stderr(verbose=words.verbose)
    shown: screen.Screen = choose(as_json=words.json, prefix=False)
    try:
        options = _read(words)
    except DriverError as error:
        shown.error(str(error))
        return console.WRONG_OPTIONS
    try:
        job = jobfile.load(words.job, options.variables)
        service = find(job.task_count)
        if words.plugin is None:
            _need_root()
        shown = choose(as_json=words.json, prefix=job.task_count > 1)
        _tell(job, shown)
        raise_file_limit()
        status = _run(job, service, options, shown)
    except DriverError as error:
        shown.error(str(error))
        status = DRIVER_FAILED
    finally:
        whole = shown.close()
    # What is taken for a good end must not have lost what the tasks said.
    return status if whole else status or DRIVER_FAILED


def _need_root() -> None:
    if os.geteuid() != 0:
        raise DriverError("containers need root", resolution="run it with sudo")


def _read(words: argparse.Namespace) -> _Options:
    return _Options(
        words=words,
        variables=plugin_block.pairs(words.var, "--var"),
        config=plugin_block.read(words.config_file, words.config),
        host=host_arguments.read(words),
        node=_node(words),
    )


def _tell(job: jobfile.Job, shown: screen.Screen) -> None:
    """What of the job is not done."""
    if not job.task_count:
        shown.note("the job has nothing to run: every group has count = 0")
    if job.ignored:
        shown.note(f"left to a Nomad agent, ignored here: {', '.join(job.ignored)}")


def _run(job: jobfile.Job, service: ServiceManager, options: _Options, shown: screen.Screen) -> int:
    words = options.words
    own = words.alloc_dir is None
    root = _own_root() if own else words.alloc_dir.absolute()
    try:
        return asyncio.run(_follow(job, service, options, shown, root))
    finally:
        if words.keep:
            shown.note(f"allocation directories kept in {root}")
        elif own:
            # Not empty where a container could not be removed: its directory stays for it.
            with contextlib.suppress(OSError):
                root.rmdir()


async def _follow(
    job: jobfile.Job, service: ServiceManager, options: _Options, shown: screen.Screen, root: Path
) -> int:
    """Sweeps up after killed runs, then runs the job to its end."""
    words, node = options.words, options.node
    if node is not None:
        await before_a_run(node, shown.note)
        await node.containerd.close()
    record = RunRecord(
        node,
        shown.note,
        cni=options.host.cni_directories,
        root=str(root),
        own_root=words.alloc_dir is None,
        keep=words.keep,
    )
    program = [str(words.plugin)] if words.plugin else default_program()
    runner = JobRunner(
        HostSession(program, options.config),
        shown,
        root,
        options.host,
        service,
        record,
        keep=words.keep,
        stats=words.stats,
    )
    return await runner.run(job)


def _own_root() -> Path:
    """A new directory for the run's allocations.

    Raises:
        DriverError: there is no room for it.
    """
    try:
        return Path(tempfile.mkdtemp(prefix="containerd-driver-")).absolute()
    except OSError as error:
        raise exhausted("no directory can be made for the allocations", error) from error


def _node(words: argparse.Namespace) -> Node | None:
    """Returns where the plugin's tasks will be; None where another driver's options do not say.

    Raises:
        DriverError: code INVALID; this driver would refuse its options.
    """
    try:
        return this_node(plugin_block.settings(words.config_file, words.config))
    except DriverError:
        if words.plugin is None:
            raise
        return None


def _parser() -> argparse.ArgumentParser:
    parser = Parser("run", "Runs a Nomad job file on this machine, without Nomad.", _EPILOG)
    add = parser.add_argument
    add("job", type=Path, help="job file, HCL or JSON; - reads stdin")
    add("--var", action="append", default=[], metavar="NAME=VALUE", help="an HCL variable")
    plugin_block.add_arguments(parser)
    host_arguments.add_arguments(parser)
    add("--alloc-dir", type=Path, metavar="DIR", help="where allocations lie (default: temporary)")
    add("--keep", action="store_true", help="keep the allocation directories")
    add("--stats", action="store_true", help="show each second what the tasks use")
    add("--json", action="store_true", help="one JSON object per line")
    add("--plugin", type=Path, metavar="PATH", help="plugin executable (default: this driver)")
    add("--verbose", action="store_true", help="show the plugin's own log")
    return parser


class _PlainFormatter(logging.Formatter):
    """Log lines for a terminal: the plugin's repeat what jobs, images and registries say."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns one line and what belongs to it."""
        return indented(super().format(record))


def _log_to_stderr(*, verbose: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    words = "%(levelname)s %(message)s"
    handler.setFormatter(_PlainFormatter(f"%(asctime)s {words}" if verbose else words))
    # What the plugin warns of reaches the user as an event or as the error of a call.
    logging.basicConfig(level=logging.DEBUG if verbose else logging.ERROR, handlers=[handler])
    for noisy in ("asyncio", "grpc", "pykka"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
