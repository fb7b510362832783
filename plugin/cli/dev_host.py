"""Dev host: the command `containerd-driver run JOB`, which runs a job without Nomad."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import tempfile
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actors.model.node import Node, this_node
from actors.processes.child_process import Child
from plugin import garbage
from plugin.cli import console, host_arguments, plugin_block
from plugin.cli.screens import choose
from plugin.host.agent.plugin_program import default_program
from plugin.host.agent.session import PluginSession
from plugin.host.job import jobfile
from plugin.host.run.job_runner import JobRunner, RunOptions
from plugin.host.run.machine import HostOptions
from plugin.host.run.record import RunRecord, dead_runs
from plugin.host.run.screen import Screen
from plugin.host.run.systemd import ServiceManager, service_manager
from plugin.host.run.task_runner import DRIVER_FAILED
from plugin.process import raise_file_limit
from plugin.texts import indented
from proto.errors import DriverError
from proto.exhaustion import exhausted
from proto.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """Checked options of the command line; for `node` see `_node`."""

    arguments: Namespace
    child: Child | None
    variables: Mapping[str, str]
    config: dict[str, Any]
    host: HostOptions
    node: Node | None


def run(arguments: Namespace, child: Child | None) -> int:
    """Runs a job file and returns the exit status.

    Args:
        arguments: the command's arguments.
        child: the process of the driver's plugin, if the process is already started.
    """
    garbage.loaded()
    _log_to_stderr(verbose=arguments.verbose)
    screen: Screen = choose(as_json=arguments.json, prefix=False)
    try:
        options = _read(arguments, child)
    except DriverError as error:
        screen.error(str(error))
        return console.WRONG_OPTIONS
    try:
        job = jobfile.load(arguments.job, options.variables)
        garbage.resume()
        service = service_manager(job.task_count)
        screen = choose(as_json=arguments.json, prefix=job.task_count > 1)
        _note_ignored_parts(job, screen)
        raise_file_limit()
        status = _run(job, service, options, screen)
    except DriverError as error:
        screen.error(str(error))
        status = DRIVER_FAILED
    finally:
        complete = screen.close()
    # A run that lost output of tasks must not end with status 0.
    return status if complete else status or DRIVER_FAILED


def _read(arguments: Namespace, child: Child | None) -> _Options:
    return _Options(
        arguments=arguments,
        child=child,
        variables=plugin_block.pairs(arguments.var, "--var"),
        config=plugin_block.read(arguments.config_file, arguments.config),
        host=host_arguments.read(arguments),
        node=_node(arguments),
    )


def _note_ignored_parts(job: jobfile.Job, screen: Screen) -> None:
    if not job.task_count:
        screen.note("the job has no task to run: every group has count = 0")
    if job.ignored:
        screen.note(f"left to a Nomad agent, ignored here: {', '.join(job.ignored)}")


def _run(job: jobfile.Job, service: ServiceManager, options: _Options, screen: Screen) -> int:
    arguments = options.arguments
    temporary = arguments.alloc_dir is None
    root = _temporary_root() if temporary else arguments.alloc_dir.absolute()
    try:
        return asyncio.run(_follow(job, service, options, screen, root))
    finally:
        if arguments.keep:
            screen.note(f"allocation directories kept in {root}")
        elif temporary:
            # If a container could not be removed, its directory stays: the root is not empty.
            with contextlib.suppress(OSError):
                root.rmdir()


async def _follow(
    job: jobfile.Job, service: ServiceManager, options: _Options, screen: Screen, root: Path
) -> int:
    """Removes objects of killed runs, then runs the job to its end."""
    arguments, node = options.arguments, options.node
    if node is not None and dead_runs(node):
        from plugin.host.run.sweep import before_a_run  # noqa: PLC0415 - loads much

        await before_a_run(node, screen.note)
        await node.containerd.close()
    record = RunRecord(
        node,
        screen.note,
        cni=options.host.cni_directories,
        root=root,
        own_root=arguments.alloc_dir is None,
        keep=arguments.keep,
    )
    program = [str(arguments.plugin)] if arguments.plugin else default_program()
    session = PluginSession(program, options.config, options.child)
    run_options = RunOptions(
        root=root, host=options.host, keep=arguments.keep, stats=arguments.stats
    )
    return await JobRunner(session, screen, service, record, run_options).run(job)


def _temporary_root() -> Path:
    """Creates a directory for the allocation directories.

    Raises:
        DriverError: the directory cannot be created, for example because of a full disk.
    """
    try:
        return Path(tempfile.mkdtemp(prefix="containerd-driver-")).absolute()
    except OSError as error:
        raise exhausted("cannot create a directory for the allocations", error) from error


def _node(arguments: Namespace) -> Node | None:
    """Returns the node of the plugin's tasks; None for the unknown options of another driver.

    Raises:
        DriverError: code INVALID, this driver would refuse the options.
    """
    try:
        return this_node(plugin_block.settings(arguments.config_file, arguments.config))
    except DriverError:
        if arguments.plugin is None:
            raise
        return None


class _PlainFormatter(logging.Formatter):
    """Plain log lines: log lines of a plugin contain texts of jobs, images and registries."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the record as a line, with further lines indented."""
        return indented(super().format(record))


def _log_to_stderr(*, verbose: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    words = "%(levelname)s %(message)s"
    handler.setFormatter(_PlainFormatter(f"%(asctime)s {words}" if verbose else words))
    # Warnings of the plugin reach the user as an event or as the error of a call.
    logging.basicConfig(level=logging.DEBUG if verbose else logging.ERROR, handlers=[handler])
    for noisy in ("asyncio", "grpc", "pykka"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
