"""Detects file servers that give no answer, with a child process that can be left behind.

A call on a path of NFS, FUSE or a similar file system waits in the kernel for the file server. A
thread that waits there cannot be ended, and can delay the plugin's own end. So code that reads a
path of the operator or of a job announces the path by `visit`, and runs by `run_probed`: a child
process first probes a path that leads over a file server. While the child waits, the file server
counts as silent: no second process probes the server, and a start that needs the server fails at
once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import posixpath
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

from actors.blocking.mount_table import MountTable, Server
from actors.processes import child_process
from proto.errors import Code, DriverError

T = TypeVar("T")
# After the first time the wait is reported, after the second it fails. An automounter can take some
# seconds.
REPORT_AFTER_S, GIVE_UP_AFTER_S = 5.0, 15.0
LATE_S = 30.0
"""For a thread on a local file system, which no one can end: a disk can be slow."""
_MOST_LATE = 32
_LINKS = 40
_STAT = "/usr/bin/stat"
_table = MountTable()


class _UnprobedError(Exception):
    """A visit came to a file server that was not probed yet."""

    def __init__(self, server: Server, path: str, what: str) -> None:
        super().__init__(path)
        self.server, self.path, self.what = server, path, what


@dataclass(slots=True)
class _Tour:
    """A run of `run_probed`: the mounted file servers, the ones that have answered, and `at`.

    at: the last visited path, for errors.
    """

    servers: Mapping[str, Server] = field(default_factory=dict)
    answered: set[Server] = field(default_factory=set)
    at: str = ""


@dataclass(slots=True)
class _Probe:
    """A child process that probes a path; until is a time of the event loop's clock."""

    ended: asyncio.Future[None]
    until: float


_tour: ContextVar[_Tour | None] = ContextVar("tour", default=None)
# Both belong to the process, not to a configuration of the driver: nothing can end a thread or a
# child that waits in the kernel, and the code that runs in `run_probed` is called without services.
_probes: dict[Server, _Probe] = {}
_late: set[asyncio.Future[Any]] = set()


def visit(path: str, what: str, *, root: str = "") -> None:
    """Announces a path to `run_probed`, whose work will read the path; does nothing elsewhere.

    Args:
        path: absolute, or below the root.
        what: names the option, for errors.
        root: a directory, below which no link is followed.
    """
    tour = _tour.get()
    if tour is None:
        return
    whole = f"{root}/{path}" if root else path
    tour.at = f"{what}: {whole[:256]!r}"
    if not tour.servers:
        return
    server = _on_the_way(root or path, tour, links=True)
    if server is not None:
        raise _UnprobedError(server, root or path, tour.at)
    server = _on_the_way(whole, tour, links=False)
    if server is not None:
        raise _UnprobedError(server, server.point, tour.at)


async def run_probed(work: Callable[[], T], report: Callable[[str], None] | None = None) -> T:
    """Runs blocking work in a thread, after a probe of each file server on the way.

    Args:
        work: announces paths by `visit`; can be begun several times, so the work must change
            nothing before its last visit.
        report: gets a sentence about a long wait.

    Raises:
        DriverError: code UNAVAILABLE; a file server gives no answer. Also the failure of the work.
    """
    tour = _Tour()

    def run() -> T:
        tour.servers = _table.servers()
        _tour.set(tour)  # in the thread's copy of the context
        return work()

    while True:
        try:
            return await in_time(run, lambda: tour.at)
        except _UnprobedError as unprobed:
            await _probe(unprobed, report)
            tour.answered.add(unprobed.server)


async def in_time(work: Callable[[], T], at: Callable[[], str]) -> T:
    """Runs blocking work in a thread, and leaves a thread behind that takes too long.

    Args:
        work: the work.
        at: returns the path that the work has reached, for errors.

    Raises:
        DriverError: code UNAVAILABLE; the kernel gives no answer. Also the failure of the work.
    """
    if len(_late) >= _MOST_LATE:
        raise _unanswered(
            f"{at() or 'the path'} was not read",
            f"{len(_late)} threads wait for the kernel already",
        )
    return await until(asyncio.ensure_future(asyncio.to_thread(work)), at)


async def until(running: asyncio.Future[T], at: Callable[[], str]) -> T:
    """Returns the result of a thread, see `in_time`; a cancelled caller does not end the thread.

    Args:
        running: the thread's future.
        at: returns the path that the thread has reached, for errors.

    Raises:
        DriverError: code UNAVAILABLE; the thread has not ended after 30 s.
    """
    try:
        await asyncio.wait([running], timeout=LATE_S)
    finally:
        if not running.done():
            _late.add(running)
            running.add_done_callback(_returned)
    if running.done():
        return running.result()
    raise _unanswered(f"{at()} cannot be used", f"the kernel gave no answer within {LATE_S:g} s")


def silent() -> tuple[Server, ...]:
    """Returns the file servers that give no answer at present."""
    if not _probes:
        return ()
    now = asyncio.get_running_loop().time()
    late = [server for server, probe in _probes.items() if probe.until <= now]
    return tuple(sorted(late, key=lambda server: server.point))


def _returned(running: asyncio.Future[Any]) -> None:
    """Drops the result of a thread that was left behind."""
    _late.discard(running)
    if not running.cancelled():
        running.exception()


def _on_the_way(path: str, tour: _Tour, *, links: bool) -> Server | None:
    """Returns the first file server on the way to a path that was not probed yet."""
    walked, left = "", _LINKS if links else 0
    todo = _parts(path)
    while todo:
        name = todo.pop()
        if name == "..":
            walked = posixpath.dirname(walked).rstrip("/")
            continue
        step = f"{walked}/{name}"
        server = tour.servers.get(step)
        if server is not None and server not in tour.answered:
            return server
        target = ""
        if left:
            with contextlib.suppress(OSError, ValueError):
                target = os.readlink(step)  # noqa: PTH115 - no object each
        if not target:
            walked = step
            continue
        left -= 1
        todo += _parts(target)
        if target.startswith("/"):
            walked = ""
    return None


def _parts(path: str) -> list[str]:
    """Splits a path into names, the last name first."""
    return [name for name in reversed(path.split("/")) if name not in {"", "."}]


async def _probe(unprobed: _UnprobedError, report: Callable[[str], None] | None) -> None:
    """Waits until the file server has given any answer.

    Raises:
        DriverError: code UNAVAILABLE; the server gives no answer.
    """
    probe = _probes.get(unprobed.server) or _begin(unprobed)
    now = asyncio.get_running_loop().time
    left_s = probe.until - now()
    if left_s > REPORT_AFTER_S and report is not None:
        await asyncio.wait([probe.ended], timeout=REPORT_AFTER_S)
        if not probe.ended.done():
            report(f"waiting for an answer of {_named(unprobed.server)}: {unprobed.what}")
    await asyncio.wait([probe.ended], timeout=max(0.0, probe.until - now()))
    if not probe.ended.done():
        raise _unanswered(
            f"{unprobed.what} cannot be used",
            f"no answer of {_named(unprobed.server)}",
            unprobed.server,
        )


def _begin(unprobed: _UnprobedError) -> _Probe:
    loop = asyncio.get_running_loop()
    ended = loop.create_task(_read_by_a_child(unprobed.path))
    _probes[unprobed.server] = probe = _Probe(ended, loop.time() + GIVE_UP_AFTER_S)
    ended.add_done_callback(lambda _: _probes.pop(unprobed.server, None))
    return probe


async def _read_by_a_child(path: str) -> None:
    """Waits until the kernel has answered a child; the work itself will get the same answer."""
    argv = [_STAT, "--dereference", "--cached=never", "--", path]
    try:
        process = await child_process.started(argv, new_session=True)
    except (OSError, DriverError):
        return
    try:
        await child_process.ended(process)
    finally:
        child_process.forsake(process)


def _named(server: Server) -> str:
    return f"the file server of {server.point} ({server.kind}, {server.source})"


def _unanswered(brief: str, details: str, server: Server | None = None) -> DriverError:
    point = server.point if server else "MOUNT-POINT"
    return DriverError(
        brief,
        details=details,
        resolution=f"check the file server and the network; umount -l {point} detaches the mount",
        recoverable=True,
        code=Code.UNAVAILABLE,
    )
