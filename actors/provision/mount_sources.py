"""Sources of mounts on the host, so that no link that a task wrote leads anywhere.

A source below the allocation's own directory is resolved by the kernel from that directory, and no
link on the way is followed: local/x may have become a link to / since the last start, and a task of
the same group may change /alloc at any moment. What is resolved is held by a mount of its own, the
pin, and the runtime is given the pin's path: between our look and the runtime's mount nothing can
be exchanged. (A path below /proc/<pid>/fd would do for openat, not for mount(2): the kernel refuses
to bind what lies in another mount namespace, and the runtime's is a new one.)

Pins live from just before the task is made until just after. They lie on a tmpfs of their own: in a
mount namespace that our mounts do not reach, the runtime then finds no file and says so, and binds
no empty directory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.blocking import file_servers
from actors.model.nomad import TaskConfig
from containerd import syscalls
from containerd.spec import root_links
from containerd.spec.mounts import invalid
from containerd.spec.targets import Entry
from proto.errors import Code, DriverError
from proto.exhaustion import exhausted, remedy

_OUTSIDE = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS
# Directories of a task that it may see itself; `private` is not among them.
_TASKS_OWN = ("local", "secrets", "tmp")
SHARED = "alloc"
LOGS = f"{SHARED}/logs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A place of the host. With `root`, path is relative to that directory and follows no link.

    what names the option, for errors.
    """

    path: str
    root: str = ""
    what: str = "mounts"

    def __str__(self) -> str:
        return f"{self.root}/{self.path}" if self.root else self.path


def locate(source: str, task: TaskConfig) -> Source:
    """Where a job's source is: beneath the task's directory, or for an absolute path on the host.

    `local/…` and `secrets/…` are the task's, `alloc/…` or `../alloc/…` the group's. An absolute
    path in the allocation's directory is treated like a relative one.

    Raises:
        DriverError: code INVALID; it leaves the directories that the task may see.
    """
    if "\0" in source or len(source) > os.pathconf("/", "PC_PATH_MAX"):
        raise invalid(f"mounts: source {source[:128]!r} is no path")
    if source.startswith("/"):
        clean = "/" + posixpath.normpath(source).lstrip("/")
        below = _relative_to(clean, task.alloc_dir)
        if below is None:
            return Source(path=clean)
    else:
        if not task.alloc_dir:
            raise invalid(f"mounts: source {source[:128]!r} is relative and the task has no place")
        first = posixpath.normpath(source).split("/")[0]
        below = posixpath.normpath(source if first == SHARED else f"{task.name}/{source}")
    parts = below.split("/")
    own = parts[0] == task.name and len(parts) > 1 and parts[1] in _TASKS_OWN
    if parts[0] != SHARED and not own:
        raise invalid(
            f"mounts: source {source[:128]!r} is not in the task's local, secrets or tmp directory,"
            " nor in the group's alloc directory",
            'write it like "local/…", "secrets/…" or "../alloc/…", or as an absolute path',
        )
    return Source(path=below, root=task.alloc_dir)


def _relative_to(path: str, directory: str) -> str | None:
    home = posixpath.normpath(directory) if directory else ""
    if not home or home == "/":
        return None
    if path == home:
        return "."
    return path[len(home) + 1 :] if path.startswith(f"{home}/") else None


def holds_logs(source: Source) -> bool:
    """Returns whether the group's log directory is in what the source names."""
    return bool(source.root) and source.path == SHARED


def is_in_logs(source: Source) -> bool:
    """Returns whether the source is the group's log directory or lies in it."""
    return bool(source.root) and (source.path == LOGS or source.path.startswith(f"{LOGS}/"))


def check(source: Source) -> None:
    """Checks that the source is there.

    Raises:
        DriverError: code INVALID; it says what is wrong with it.
    """
    if "\0" in source.path:
        raise invalid(f"{source.what}: source {source.path[:128]!r} is no path")
    file_servers.visit(source.path, source.what, root=source.root)
    if source.root:
        os.close(_open(source))
        return
    try:
        os.stat(source.path)  # noqa: PTH116 - the operator's links are followed
    except OSError as error:
        raise _cannot(source, error) from error


def entry(source: Source, path: str) -> Entry:
    """Returns the kind of a path below a source; only links on the way to the source are followed.

    Raises:
        DriverError: code INVALID; the source is not what it was.
    """
    file_servers.visit(source.path, source.what, root=source.root)
    directory = _open(source)
    try:
        return root_links.entry(directory, path)
    except OSError as error:
        raise _cannot(source, error) from error
    finally:
        os.close(directory)


def make_target(source: Source, path: str, shown: Source | None) -> None:
    """Makes a path below a source that something will be mounted on: a directory, or a file.

    Args:
        source: where the path counts from; nothing in it is followed.
        path: what is there stays.
        shown: the source that will be seen at the path; None is a directory.

    Raises:
        DriverError: code INVALID; a link is on the way, or the kernel refuses.
    """
    file_servers.visit(source.path, source.what, root=source.root)
    is_file = shown is not None and not is_directory(shown)
    *above, last = path.split("/")
    here = _open(source)
    try:
        for name in above:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=here)
            inner = syscalls.openat2(here, name, os.O_PATH | os.O_DIRECTORY, _OUTSIDE)
            os.close(here)
            here = inner
        with contextlib.suppress(FileExistsError):
            if is_file:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open(last, flags, 0o644, dir_fd=here))
            else:
                os.mkdir(last, 0o755, dir_fd=here)
    except OSError as error:
        raise invalid(
            f"mounts: the target {path[:128]!r} cannot be made in {str(source)[:256]!r}:"
            f" {error.strerror}",
            "make it before the task starts, as a plain directory or file",
        ) from error
    finally:
        os.close(here)


def is_directory(source: Source) -> bool:
    """Returns whether the source is a directory.

    Raises:
        DriverError: code INVALID; the source is not what it was.
    """
    file_servers.visit(source.path, source.what, root=source.root)
    found = _open(source)
    try:
        return stat.S_ISDIR(os.fstat(found).st_mode)
    finally:
        os.close(found)


def _open(source: Source) -> int:
    """A descriptor of a source, for mounting or for a look; below a root no link is followed."""
    try:
        if not source.root:
            return os.open(source.path, os.O_PATH | os.O_CLOEXEC)
        root = os.open(source.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return syscalls.openat2(root, source.path, os.O_PATH, _OUTSIDE)
        finally:
            os.close(root)
    except OSError as error:
        raise _cannot(source, error) from error


def _cannot(source: Source, error: OSError) -> DriverError:
    if source.root and error.errno in {errno.ELOOP, errno.EXDEV}:
        return invalid(
            f"{source.what}: source {str(source)[:256]!r} goes through a link",
            "a task can write such links, so none is followed: name the real path",
        )
    if error.errno == errno.ENOENT:
        return invalid(
            f"{source.what}: source {str(source)[:256]!r} does not exist on this node",
            "make it before the task starts, with a template or an artifact for instance",
        )
    if remedy(error):
        return exhausted(f"{source.what}: source {str(source)[:256]!r} cannot be used", error)
    return invalid(f"{source.what}: source {str(source)[:256]!r} cannot be used: {error.strerror}")


def pin_path(directory: Path, number: int) -> str:
    """Returns where the source with this number will be."""
    return str(directory / str(number))


def pin(directory: Path, sources: Sequence[Source]) -> None:
    """Mounts each source below the directory, under its number. Blocks.

    Raises:
        DriverError: a source is not what it was, or the kernel refuses. Nothing stays.
    """
    if not sources:
        return
    release(directory)
    try:
        # With `parents`, mkdir gives its mode to the last one only.
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.mkdir(mode=0o700)
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
        syscalls.mount("tmpfs", str(directory), "tmpfs", flags, "mode=0700,size=1m")
        for number, source in enumerate(sources):
            _pin_one(source, Path(pin_path(directory, number)))
    except DriverError:
        release(directory)
        raise
    except OSError as error:
        release(directory)
        raise DriverError(
            "Error in creating container: the sources of its mounts cannot be held",
            details=f"{error.filename}: {error.strerror}",
            resolution="the driver runs as root with the right to mount; see option state_dir",
            recoverable=error.errno in {errno.ENOSPC, errno.ENOMEM},
            code=Code.INTERNAL,
        ) from error


def _pin_one(source: Source, target: Path) -> None:
    descriptor = _open(source)
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            target.mkdir(mode=0o700)
        else:
            target.touch(mode=0o600)
        # Not recursive: the tree goes with the pin, and no task can mount anything below its own.
        syscalls.mount(f"/proc/self/fd/{descriptor}", str(target), "", syscalls.MS_BIND)
    finally:
        os.close(descriptor)


def release(directory: Path) -> None:
    """Removes all pins of a directory, of any earlier start too; done is done. Blocks.

    Never removes a file below a mount: rmdir fails where one is left.
    """
    with contextlib.suppress(OSError):
        while True:
            syscalls.unmount(str(directory))
    with contextlib.suppress(OSError):
        directory.rmdir()
