"""The only place that starts child processes: launcher, puller, credential helpers, host's plugin.

The environment of a child is built from nothing. What outlives the plugin must not hold the
plugin's stdout or stderr: go-plugin waits for the end of both before it notices a dead plugin.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from proto.exhaustion import advice, exhausted

PIPE = subprocess.PIPE
DEVNULL = subprocess.DEVNULL
Child = subprocess.Popen[bytes]
_DEATH_S, _MOMENT_S = 5.0, 0.1

ROOT = Path(__file__).resolve().parents[2]
"""Where the top-level packages lie: the checkout, or the package's private directory."""

BASE_ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}


def start(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: int = DEVNULL,
    stdout: int = DEVNULL,
    stderr: int = DEVNULL,
    new_session: bool = False,
) -> Child:
    """Starts a child with all other descriptors closed. Never through a shell.

    Args:
        argv: the program, an absolute path, and its arguments; no secrets, `ps` shows them.
        env: the whole environment; BASE_ENVIRONMENT where not given.
        stdin: a descriptor, PIPE or DEVNULL; likewise stdout and stderr.
        stdout: see stdin.
        stderr: see stdin.
        new_session: True takes the child out of our session and process group.

    Raises:
        OSError: the program cannot be started.
        DriverError: code EXHAUSTED, for want of processes, descriptors or memory.
    """
    try:
        return subprocess.Popen(
            list(argv),
            env=dict(BASE_ENVIRONMENT if env is None else env),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=new_session,
            close_fds=True,
        )
    except OSError as error:
        if advice(error):
            program = next((word for word in argv if word.endswith(".py")), argv[0])
            name = program.rpartition("/")[2]
            raise exhausted(f"no process can be made for {name}", error) from error
        raise


async def started(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: int = DEVNULL,
    stdout: int = DEVNULL,
    stderr: int = DEVNULL,
    new_session: bool = False,
) -> Child:
    """Starts a child in a thread, see `start`. A caller that is cancelled leaves no child behind.

    Raises:
        OSError: the program cannot be started.
        DriverError: code EXHAUSTED, for want of processes, descriptors or memory.
    """
    begin = functools.partial(
        start,
        argv,
        env=env,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        new_session=new_session,
    )
    starting = asyncio.get_running_loop().run_in_executor(None, begin)
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(_discard)
        raise


def _discard(starting: asyncio.Future[Child]) -> None:
    if starting.cancelled() or starting.exception() is not None:
        return
    process = starting.result()
    for pipe in filter(None, (process.stdin, process.stdout, process.stderr)):
        pipe.close()
    forsake(process)


def end_group(process: Child) -> int:
    """Kills a child that has a session of its own, with all that it started, and reaps it.

    Returns:
        The exit status. Blocks, but not for long.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return _killed(process)


def finish(process: Child, grace_s: float) -> int:
    """Closes the child's stdin, waits, kills what has not ended after grace_s, and reaps it.

    Returns:
        The exit status, negative for a signal. Blocks: call it off the event loop.
    """
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    try:
        return process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return _killed(process)


def _killed(process: Child) -> int:
    """The exit status of what was just killed; the signal's, where the kernel keeps it waiting."""
    try:
        return process.wait(_DEATH_S)
    except subprocess.TimeoutExpired:
        return -signal.SIGKILL


def forsake(process: Child) -> None:
    """Kills a child that nobody waits for any more; one that the kernel keeps ends by itself."""
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_MOMENT_S)


async def ended(process: Child) -> int:
    """Waits for the end of a child without a thread, and reaps it.

    Returns:
        The exit status, negative for a signal.
    """
    loop = asyncio.get_running_loop()
    descriptor = os.pidfd_open(process.pid)
    try:
        over = asyncio.Event()
        loop.add_reader(descriptor, over.set)
        await over.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return process.wait()
