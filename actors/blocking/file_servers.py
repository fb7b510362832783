"""File servers that do not answer: found out by a process that can be left behind.

A look at a path on NFS, FUSE or their like waits in the kernel for the file server. A thread that
waits there cannot be ended, and may keep the plugin's own end waiting. So code that looks at a path
of the operator or of a job says so before, by `visit`, and runs by `looked_at`: a path that leads
over a file server is first looked at by a child process. While that one waits, the file server is
known to be silent: it is asked by no second process, and a start that needs it fails at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import posixpath
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from actors.processes import child_process
from proto.errors import Code, DriverError

T = TypeVar("T")
# The first is told, the second is the end. An automounter may take some seconds.
TELL_AFTER_S, GIVE_UP_AFTER_S = 5.0, 15.0
LATE_S = 30.0
"""For a thread that nobody can end, on what is no file server's: a disk may be slow."""
_MOST_LATE = 32
_LINKS = 40
_STAT = "/usr/bin/stat"
# All others are taken for file servers: each asks somebody else for what is in it.
_LOCAL = frozenset(
    {
        *("aufs", "bcachefs", "binfmt_misc", "bpf", "btrfs", "cgroup", "cgroup2", "configfs"),
        *("cpuset", "debugfs", "devpts", "devtmpfs", "ecryptfs", "efivarfs", "erofs", "exfat"),
        *("ext2", "ext3", "ext4", "f2fs", "fusectl", "hugetlbfs", "iso9660", "jfs", "mqueue"),
        *("nsfs", "ntfs", "ntfs3", "overlay", "proc", "pstore", "ramfs", "reiserfs", "rootfs"),
        *("rpc_pipefs", "securityfs", "selinuxfs", "squashfs", "sysfs", "tmpfs", "tracefs"),
        *("udf", "vfat", "xfs", "zfs"),
    }
)


@dataclass(frozen=True, slots=True)
class Server:
    """A mounted file system whose contents somebody else has. number is the mount's id."""

    number: str
    point: str
    kind: str
    source: str


class _UnaskedError(Exception):
    """A look came to a file server that may not answer."""

    def __init__(self, server: Server, path: str, what: str) -> None:
        super().__init__(path)
        self.server, self.path, self.what = server, path, what


@dataclass(slots=True)
class _Tour:
    """One look: which file servers are mounted, which of them have answered, where it is."""

    servers: Mapping[str, Server] = field(default_factory=dict)
    answered: set[Server] = field(default_factory=set)
    at: str = ""


@dataclass(slots=True)
class _Question:
    """A child process that looks at a path, since a time of the event loop's clock."""

    ended: asyncio.Future[None]
    until: float


_tour: ContextVar[_Tour | None] = ContextVar("tour", default=None)
_questions: dict[Server, _Question] = {}
_late: set[asyncio.Future[Any]] = set()


def visit(path: str, what: str, *, root: str = "") -> None:
    """Says that the code which `looked_at` runs will look at a path; elsewhere it does nothing.

    Args:
        path: absolute, or below the root.
        what: names the option, for errors.
        root: a directory; below it no link is followed.
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
        raise _UnaskedError(server, root or path, tour.at)
    server = _on_the_way(whole, tour, links=False)
    if server is not None:
        raise _UnaskedError(server, server.point, tour.at)


async def looked_at(look: Callable[[], T], tell: Callable[[str], None] | None = None) -> T:
    """Runs what blocks in a thread; each file server on the way is asked before.

    Args:
        look: says by `visit` where it looks; may be begun several times, so it changes nothing.
        tell: hears what is waited for.

    Raises:
        DriverError: a file server does not answer, by name; and what `look` raises.
    """
    tour = _Tour()

    def run() -> T:
        tour.servers = _mounted()
        _tour.set(tour)  # in the thread's copy of the context
        return look()

    while True:
        try:
            return await in_time(run, lambda: tour.at)
        except _UnaskedError as place:
            await _ask(place, tell)
            tour.answered.add(place.server)


async def in_time(work: Callable[[], T], at: Callable[[], str]) -> T:
    """Runs what blocks in a thread, which is left behind where it comes to no end.

    Args:
        work: the work.
        at: where the work is, for errors.

    Raises:
        DriverError: code UNAVAILABLE; and what `work` raises.
    """
    if len(_late) >= _MOST_LATE:
        raise _unanswered(f"{at() or 'it'} was not looked at", f"{len(_late)} earlier looks wait")
    return await until(asyncio.ensure_future(asyncio.to_thread(work)), at)


async def until(running: asyncio.Future[T], at: Callable[[], str]) -> T:
    """Returns the result of a thread, see `in_time`; a cancelled caller leaves the thread alone."""
    try:
        await asyncio.wait([running], timeout=LATE_S)
    finally:
        if not running.done():
            _late.add(running)
            running.add_done_callback(_back)
    if running.done():
        return running.result()
    raise _unanswered(f"{at()} cannot be used", f"the kernel gave no answer within {LATE_S:g} s")


def silent() -> tuple[Server, ...]:
    """The file servers that were asked and do not answer, as it is now."""
    if not _questions:
        return ()
    now = asyncio.get_running_loop().time()
    late = [server for server, question in _questions.items() if question.until <= now]
    return tuple(sorted(late, key=lambda server: server.point))


def _back(running: asyncio.Future[Any]) -> None:
    """A thread that was left behind has come back; nobody wants what it brings."""
    _late.discard(running)
    if not running.cancelled():
        running.exception()


def _mounted() -> dict[str, Server]:
    """File servers by where they are mounted, but for the machine's own root."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/thread-self/mountinfo").read_bytes()
        return dict(_servers(os.fsdecode(lines)))
    return {}


def _servers(mountinfo: str) -> list[tuple[str, Server]]:
    found: list[tuple[str, Server]] = []
    # Only the end of a line parts two mounts: a name may have any other character in it.
    for line in mountinfo.split("\n"):
        fields, _, rest = line.partition(" - ")
        kind, _, rest = rest.partition(" ")
        if not kind or kind in _LOCAL:
            continue
        number, _, _, _, point, *_ = fields.split(" ")
        point = _plain(point)
        if point != "/":
            source = _plain(rest.partition(" ")[0])
            found.append((point, Server(number, point, kind, source)))
    return found


def _plain(field: str) -> str:
    """A field of mountinfo without its escapes for blanks and backslashes."""
    if "\\" not in field:
        return field
    for written, meant in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(written, meant)
    return field


def _on_the_way(path: str, tour: _Tour, *, links: bool) -> Server | None:
    """The first file server that the kernel comes to on the way to a path and was not asked."""
    place, left = "", _LINKS if links else 0
    todo = _parts(path)
    while todo:
        name = todo.pop()
        if name == "..":
            place = posixpath.dirname(place).rstrip("/")
            continue
        step = f"{place}/{name}"
        server = tour.servers.get(step)
        if server is not None and server not in tour.answered:
            return server
        target = ""
        if left:
            with contextlib.suppress(OSError, ValueError):
                target = os.readlink(step)  # noqa: PTH115 - no object each
        if not target:
            place = step
            continue
        left -= 1
        todo += _parts(target)
        if target.startswith("/"):
            place = ""
    return None


def _parts(path: str) -> list[str]:
    """Names on the way, the last one first."""
    return [name for name in reversed(path.split("/")) if name not in {"", "."}]


async def _ask(place: _UnaskedError, tell: Callable[[str], None] | None) -> None:
    """Returns when the file server has answered anything.

    Raises:
        DriverError: code UNAVAILABLE; it does not.
    """
    question = _questions.get(place.server) or _begin(place)
    now = asyncio.get_running_loop().time
    left_s = question.until - now()
    if left_s > TELL_AFTER_S and tell is not None:
        await asyncio.wait([question.ended], timeout=TELL_AFTER_S)
        if not question.ended.done():
            tell(f"waits for an answer of {_named(place.server)}: {place.what}")
    await asyncio.wait([question.ended], timeout=max(0.0, question.until - now()))
    if not question.ended.done():
        raise _unanswered(
            f"{place.what} cannot be used", f"no answer of {_named(place.server)}", place.server
        )


def _begin(place: _UnaskedError) -> _Question:
    loop = asyncio.get_running_loop()
    ended = loop.create_task(_look_by_a_child(place.path))
    _questions[place.server] = question = _Question(ended, loop.time() + GIVE_UP_AFTER_S)
    ended.add_done_callback(lambda _: _questions.pop(place.server, None))
    return question


async def _look_by_a_child(path: str) -> None:
    """Returns when the kernel has answered; what it answered, the look itself will meet."""
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
    place = server.point if server else "PLACE"
    return DriverError(
        brief,
        details=details,
        resolution=f"look at that file server and the network; umount -l {place} gives it up",
        recoverable=True,
        code=Code.UNAVAILABLE,
    )
