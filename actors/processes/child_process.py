"""Start and end of child processes: launcher, puller, credential helpers, the dev host's plugin.

No other module starts child processes. The environment of a child is built from nothing. A child
that outlives the plugin must not hold the plugin's stdout or stderr: go-plugin notices a dead
plugin only at the end of both.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from proto.exhaustion import advice, exhausted

if TYPE_CHECKING:
    import asyncio

PIPE = subprocess.PIPE
DEVNULL = subprocess.DEVNULL
Child = subprocess.Popen[bytes]
_DEATH_S, _MOMENT_S = 5.0, 0.1

ROOT = Path(__file__).resolve().parents[2]
"""Directory of the folders: the checkout, the Debian package's directory or the wheel's package."""

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
    """Starts a child without a shell. The child inherits no other descriptor.

    Args:
        argv: absolute path of the program, and the arguments. `ps` shows arguments: no secrets.
        env: the whole environment; None is BASE_ENVIRONMENT.
        stdin: a descriptor, PIPE or DEVNULL.
        stdout: as `stdin`.
        stderr: as `stdin`.
        new_session: True gives the child a session and a process group of its own.

    Raises:
        OSError: the program cannot be started.
        DriverError: code EXHAUSTED; no process, descriptor or memory is left.
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
            raise exhausted(f"cannot create a process for {name}", error) from error
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
    """Starts a child in a thread, as `start` does. A cancelled caller leaves no child behind.

    Raises:
        OSError: the program cannot be started.
        DriverError: code EXHAUSTED; no process, descriptor or memory is left.
    """
    import asyncio  # noqa: PLC0415 - a run starts its plugin before it loads asyncio

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
    """Kills a child with its own session and all processes of the session. Blocks briefly.

    Returns:
        The exit status.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return _killed(process)


def finish(process: Child, grace_s: float) -> int:
    """Closes the child's stdin, waits for the end, and kills the child after `grace_s` seconds.

    The function blocks: call the function in a thread.

    Returns:
        The exit status, negative for a signal.
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
    """Reaps a killed child. Returns -SIGKILL for a child that is stuck in the kernel."""
    try:
        return process.wait(_DEATH_S)
    except subprocess.TimeoutExpired:
        return -signal.SIGKILL


def forsake(process: Child) -> None:
    """Kills a child whose result is not needed. A child that is stuck in the kernel ends later."""
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_MOMENT_S)


def dismiss(process: Child) -> None:
    """Asks a child to end with SIGTERM, and kills the child after 5 s. Closes its pipes. Blocks."""
    if process.poll() is None:
        process.terminate()
        finish(process, _DEATH_S)
    for pipe in filter(None, (process.stdout, process.stderr)):
        pipe.close()


async def ended(process: Child) -> int:
    """Waits for the end of a child without a thread, and reaps it.

    Returns:
        The exit status, negative for a signal.
    """
    import asyncio  # noqa: PLC0415 - as in `started`

    loop = asyncio.get_running_loop()
    descriptor = os.pidfd_open(process.pid)
    try:
        event = asyncio.Event()
        loop.add_reader(descriptor, event.set)
        await event.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return process.wait()
