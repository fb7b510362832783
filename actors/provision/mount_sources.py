"""Resolves and pins the sources of mounts, so that no link of a task leads out of the allocation.

The kernel resolves a source below the allocation's directory from that directory, and follows no
link on the way: local/x can have become a link to / since the last start, and a task of the same
group can change /alloc at any moment. A bind mount of the driver, the pin, keeps the resolved file,
and the runtime gets the pin's path. So a task cannot replace the source between the driver's check
and the runtime's mount. (A path below /proc/<pid>/fd would work for openat but not for mount(2):
the kernel refuses to bind a file of another mount namespace, and the runtime has a new namespace.)

Pins live from just before the creation of the task until just after. They lie on a tmpfs of their
own. In a mount namespace that the driver's mounts do not reach, the runtime finds no file below the
tmpfs, and reports an error instead of the bind of an empty directory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from collections.abc import Sequence
from pathlib import Path

from actors.blocking import file_servers
from actors.files import relabel
from actors.model.nomad import TaskConfig
from actors.provision import shared_namespaces
from actors.provision.shared_namespaces import SharedNamespaces
from containerd import syscalls
from containerd.security.selinux import Contexts
from containerd.spec import root_links
from containerd.spec.targets import Entry
from proto.errors import Code, DriverError, start_refused
from proto.exhaustion import advice, exhausted
from proto.values import dataclass

# Directories that a task can see; `private` is Nomad's alone.
_VISIBLE = ("local", "secrets", "tmp")
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
SHARED = "alloc"
LOGS = f"{SHARED}/logs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A path of the node, or a path below `root` that follows no link.

    what: names the option, for errors.
    with_mounts: True for a path of the node that is pinned with all mounts below it.
    """

    path: str
    root: str = ""
    what: str = "mounts"
    with_mounts: bool = False

    def __str__(self) -> str:
        return f"{self.root.rstrip('/')}/{self.path}" if self.root else self.path


@dataclass(frozen=True, slots=True, kw_only=True)
class Relabel:
    """A source whose files get an SELinux context.

    words: `z` for a context of all tasks, `Z` for the allocation's; other words are a mistake.
    asked: True if the mount itself has the words.
    """

    source: Source
    words: str
    asked: bool = False


def locate(source: str, task: TaskConfig) -> Source:
    """Returns a mount source of a job: below the allocation's directory, or anywhere on the node.

    `local/…` and `secrets/…` belong to the task, `alloc/…` or `../alloc/…` to the group. An
    absolute path in the allocation's directory is handled like a relative path.

    Args:
        source: as the job wrote it.
        task: Nomad's description of the task.

    Raises:
        DriverError: code INVALID; the path leaves the directories that the task can see.
    """
    if "\0" in source or len(source) > os.pathconf("/", "PC_PATH_MAX"):
        raise start_refused(f"mounts: source {source[:128]!r} is not a valid path")
    if source.startswith("/"):
        clean = "/" + posixpath.normpath(source).lstrip("/")
        below = _relative_to(clean, task.alloc_dir)
        if below is None:
            return Source(path=clean)
    else:
        if not task.alloc_dir:
            raise start_refused(
                f"mounts: source {source[:128]!r} is relative, but the task has no allocation"
                " directory"
            )
        first = posixpath.normpath(source).split("/")[0]
        below = posixpath.normpath(source if first == SHARED else f"{task.name}/{source}")
    parts = below.split("/")
    of_task = parts[0] == task.name and len(parts) > 1 and parts[1] in _VISIBLE
    if parts[0] != SHARED and not of_task:
        raise start_refused(
            f"mounts: source {source[:128]!r} is not in the task's local, secrets or tmp directory,"
            " nor in the group's alloc directory",
            'use "local/…", "secrets/…" or "../alloc/…", or an absolute path',
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
    """Returns whether the source contains the group's log directory."""
    return _is_in_allocation(source) and source.path == SHARED


def is_in_logs(source: Source) -> bool:
    """Returns whether the source is the group's log directory or lies in it."""
    in_logs = source.path == LOGS or source.path.startswith(f"{LOGS}/")
    return _is_in_allocation(source) and in_logs


def _is_in_allocation(source: Source) -> bool:
    return bool(source.root) and not source.with_mounts


def check(source: Source) -> None:
    """Checks the existence of a source, and refuses links on the way below a root. Blocks.

    Raises:
        DriverError: code INVALID; the source is missing or unusable.
    """
    if "\0" in source.path:
        raise start_refused(f"{source.what}: source {source.path[:128]!r} is not a valid path")
    file_servers.visit(source.path, source.what, root=source.root)
    if source.root:
        os.close(_open(source))
        return
    try:
        os.stat(source.path)  # noqa: PTH116 - the operator's links are followed
    except OSError as error:
        raise _cannot(source, error) from error


def reached(source: Source) -> Path:
    """Returns the path of a source of the node after all links. Blocks.

    Raises:
        DriverError: code INVALID; the source is missing or unusable.
    """
    file_servers.visit(source.path, source.what)
    descriptor = _open(source)
    try:
        return Path(f"/proc/self/fd/{descriptor}").readlink()
    finally:
        os.close(descriptor)


def entry(source: Source, path: str) -> Entry:
    """Returns the kind of a path below a source, without following links below the source. Blocks.

    Raises:
        DriverError: code INVALID; the source has changed since the check.
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
    """Creates a mount's target below a source: a directory, or a file. Blocks.

    Args:
        source: the directory that the path starts at; no link below the source is followed.
        path: the target; an existing file or directory stays.
        shown: the source of the mount at the target; None creates a directory.

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
            inner = syscalls.openat2(here, name, os.O_PATH | os.O_DIRECTORY, syscalls.INSIDE)
            os.close(here)
            here = inner
        with contextlib.suppress(FileExistsError):
            if is_file:
                os.close(os.open(last, _NEW_FILE, 0o644, dir_fd=here))
            else:
                os.mkdir(last, 0o755, dir_fd=here)
    except OSError as error:
        raise start_refused(
            f"mounts: cannot create the target {path[:128]!r} in {str(source)[:256]!r}:"
            f" {error.strerror}",
            "create the target before the task starts, as a plain directory or file",
        ) from error
    finally:
        os.close(here)


def is_directory(source: Source) -> bool:
    """Returns whether the source is a directory. Blocks.

    Raises:
        DriverError: code INVALID; the source has changed since the check.
    """
    file_servers.visit(source.path, source.what, root=source.root)
    descriptor = _open(source)
    try:
        return stat.S_ISDIR(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def _open(source: Source) -> int:
    """Opens a source for a mount or an inspection; follows no link below a root."""
    try:
        if not source.root:
            return os.open(source.path, os.O_PATH | os.O_CLOEXEC)
        root = os.open(source.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return syscalls.openat2(root, source.path, os.O_PATH, syscalls.INSIDE)
        finally:
            os.close(root)
    except OSError as error:
        raise _cannot(source, error) from error


def _cannot(source: Source, error: OSError) -> DriverError:
    if source.root and error.errno in {errno.ELOOP, errno.EXDEV}:
        return start_refused(
            f"{source.what}: source {str(source)[:256]!r} goes through a link",
            "tasks can create such links, so the driver follows none: use the real path",
        )
    if error.errno == errno.ENOENT:
        return start_refused(
            f"{source.what}: source {str(source)[:256]!r} does not exist on this node",
            "create the source before the task starts, for example with a template or an artifact",
        )
    if advice(error):
        return exhausted(f"{source.what}: source {str(source)[:256]!r} cannot be used", error)
    return start_refused(
        f"{source.what}: source {str(source)[:256]!r} cannot be used: {error.strerror}"
    )


def may_relabel(wanted: Relabel) -> bool:
    """Returns whether a source may get a context; False for the host's own directories. Blocks.

    Raises:
        DriverError: code INVALID; the mount itself asks for a context that the host's directory
            cannot have, or the words are a mistake.
    """
    source = wanted.source
    if wanted.words not in {"z", "Z"}:
        raise start_refused(
            f"{source.what}: the SELinux label {wanted.words[:64]!r} is neither z nor Z"
        )
    if _is_in_allocation(source):
        return True
    real = f"/{source.path}" if source.root else str(reached(source))
    kept = relabel.is_kept(real)
    if kept and wanted.asked:
        raise start_refused(
            f"{source.what}: {source.path[:128]!r} cannot get another SELinux context: the host"
            " needs the context",
            "remove z, Z or selinux_label, or mount a directory below",
        )
    return not kept


def set_context(wanted: Relabel, contexts: Contexts) -> None:
    """Sets the SELinux context of a source and of all files below. Blocks.

    Raises:
        DriverError: the source has changed since the check, or the kernel refuses.
    """
    context = contexts.shared_files if wanted.words == "z" else contexts.files
    descriptor = _open(wanted.source)
    try:
        relabel.relabel(descriptor, context)
    except OSError as error:
        raise start_refused(
            f"{wanted.source.what}: the files of {str(wanted.source)[:128]!r} cannot get the"
            f" SELinux context {context[:128]}: {error.strerror}",
            "remove z, Z or selinux_label, or set selinuxlabel in the driver's plugin block",
        ) from error
    finally:
        os.close(descriptor)


def pin_path(directory: Path, number: int) -> str:
    """Returns the path of a pin by the number of its source."""
    return f"{directory}/{number}"


def pin(directory: Path, sources: Sequence[Source], shared: SharedNamespaces | None = None) -> None:
    """Mounts each source below the directory, under the source's number. Blocks.

    Args:
        directory: the directory of the pins; pins of an earlier start are released first.
        sources: in the order of their numbers.
        shared: namespaces to pin beside the sources.

    Raises:
        DriverError: a source has changed since the check, or the kernel refuses. No pin is left.
    """
    if not sources and not (shared and shared.descriptors):
        return
    release(directory)
    try:
        # With `parents`, mkdir gives the mode to the last directory only.
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.mkdir(mode=0o700)
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
        syscalls.mount("tmpfs", str(directory), "tmpfs", flags, "mode=0700,size=1m")
        for number, source in enumerate(sources):
            _pin_one(source, pin_path(directory, number))
        if shared:
            shared_namespaces.pin(str(directory), shared)
    except DriverError:
        release(directory)
        raise
    except OSError as error:
        release(directory)
        raise start_refused(
            "cannot pin the sources of the task's mounts",
            "run the driver as root with the right to mount; see the option state_dir",
            details=f"{error.filename}: {error.strerror}",
            recoverable=error.errno in {errno.ENOSPC, errno.ENOMEM},
            code=Code.INTERNAL,
        ) from error


def _pin_one(source: Source, target: str) -> None:
    descriptor = _open(source)
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            os.mkdir(target, 0o700)  # noqa: PTH102 - no object for each pin
        else:
            os.close(os.open(target, _NEW_FILE, 0o600))
        # No task can mount below its own directory.
        rest = syscalls.MS_REC if source.with_mounts else 0
        syscalls.mount(f"/proc/self/fd/{descriptor}", target, "", syscalls.MS_BIND | rest)
        if rest:
            # The release of the pin must not unmount the node's own mounts below the source.
            syscalls.mount("", target, "", syscalls.MS_SLAVE | rest)
    finally:
        os.close(descriptor)


def release(directory: Path) -> None:
    """Removes all pins of a directory, also pins of earlier starts. Blocks.

    Removes no file below a mount: rmdir fails where a mount is left.
    """
    with contextlib.suppress(OSError):
        while True:
            syscalls.unmount(str(directory))
    with contextlib.suppress(OSError):
        directory.rmdir()
