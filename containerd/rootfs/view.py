"""A look into the root of a snapshot, whose file system is mounted where nobody else sees it.

`look` gives a reader a descriptor of the root. The mount lies in a mount namespace of the reading
thread: nothing is ever mounted where another process sees it, and nothing stays mounted when the
plugin is killed. Nothing is written to the snapshot: an overlay's upper directory becomes its
uppermost lower one, as containerd has it for the same purpose. A mount of an upper directory would
leave marks in the work directory (option `volatile`).

mount(2) takes one page of options and cuts silently what is longer. So each lower directory gets
a short name: a link in a tmpfs of the same namespace. That is enough for the 500 layers that the
kernel takes, wherever they lie. fsconfig(2) takes them by their own names only from Linux 6.8 on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from containerd import syscalls
from containerd.rootfs import loop_device, mount_chain
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from containerd.api.records import Mount

T = TypeVar("T")
# No snapshot lies below it, and only the reading thread sees what is mounted over it.
_PLACE = "/sys"
_ROOT = f"{_PLACE}/root"
_LAYERS = f"{_PLACE}/layers"
_EMPTY = f"{_PLACE}/empty"
_PAGE_BYTES = 4096
_FLAGS = {
    "bind": syscalls.MS_BIND,
    "rbind": syscalls.MS_BIND | syscalls.MS_REC,
    "nosuid": syscalls.MS_NOSUID,
    "nodev": syscalls.MS_NODEV,
    "noexec": syscalls.MS_NOEXEC,
}
# Flags of mount(8) that say nothing to a reader, and options of writers.
_NEEDLESS = frozenset(
    {
        *("ro", "rw", "suid", "dev", "exec", "async", "sync", "dirsync", "mand", "nomand"),
        *("defaults", "remount", "atime", "noatime", "diratime", "nodiratime", "relatime"),
        *("norelatime", "strictatime", "nostrictatime", "volatile"),
    }
)
_OF_WRITERS = ("upperdir=", "workdir=", "fsync=", "uidmap=", "gidmap=", "extraoption=")
# A helper program mounts these for containerd, in the way of the kernel's overlay.
_OVERLAYS = frozenset({"overlay", "fuse3.fuse-overlayfs", "fuse.nydus-overlayfs"})
# `\:` is a colon of a path.
_COLON = re.compile(r"(?<!\\):")


def look(mounts: tuple[Mount, ...], read: Callable[[int], T]) -> T:
    """Returns what `read` makes of the root of a snapshot. Blocks: call it in an executor.

    Args:
        mounts: as the snapshotter gave them, of a snapshot that no task has mounted yet.
        read: gets a descriptor (O_PATH) of the root, closed after it, and leaves none open below
            it. It resolves paths by `kernel.openat2` with RESOLVE_IN_ROOT, for the image chose its
            links.

    Raises:
        DriverError: code UNSUPPORTED; the snapshot cannot be mounted.
        BaseException: what `read` raised.
    """

    def work() -> T:
        with ExitStack() as stack:
            _enter_own_namespace()
            try:
                for mount, place in mount_chain.resolve(mounts, _place_of):
                    _mount(mount, place, stack)
            except OSError as error:
                raise _unmountable(mounts, error) from error
            root = os.open(_ROOT, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, root)
            return read(root)

    return syscalls.in_a_thread_of_its_own(work)


def _enter_own_namespace() -> None:
    try:
        syscalls.unshare(syscalls.CLONE_FS | syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
        syscalls.mount(
            "tmpfs", _PLACE, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=0700"
        )
        for directory in (_ROOT, _LAYERS, _EMPTY):
            Path(directory).mkdir()
        os.chdir(_LAYERS)
    except OSError as error:
        raise DriverError(
            "the driver cannot mount anything to look into images",
            details=f"{error.strerror or error}",
            resolution="run the agent as root, with the right to mount",
            code=Code.UNSUPPORTED,
        ) from error


def _place_of(number: int) -> str:
    return f"{_PLACE}/mount{number}"


def _mount(mount: Mount, place: str, stack: ExitStack) -> None:
    """Mounts at a place of its own, or in the root."""
    if place:
        Path(place).mkdir()
    target = place or _in_root(mount.target, stack)
    flags, options, source = 0, list[str](), mount.source
    for option in mount.options:
        flags |= _FLAGS.get(option, 0)
        if option not in _FLAGS and option not in _NEEDLESS and not option.startswith(_OF_WRITERS):
            options.append(option)
    kind = "overlay" if mount.type in _OVERLAYS else mount.type
    if kind == "overlay":
        options = _with_short_names(_layers(mount.options), options)
    if "loop" in options:
        options.remove("loop")
        source = stack.enter_context(loop_device.attached(source))
    if flags & syscalls.MS_BIND:
        kind = ""
    else:
        flags |= syscalls.MS_RDONLY
    data = ",".join(options)
    if len(os.fsencode(data)) >= _PAGE_BYTES:
        raise OSError(f"its options are longer than {_PAGE_BYTES} bytes")
    syscalls.mount(source, target, kind, flags, data)
    if target == _ROOT or place:
        # At once and not with the thread: a device that is mounted read-only cannot be mounted
        # writable for the task.
        stack.callback(syscalls.unmount, target)


def _in_root(target: str, stack: ExitStack) -> str:
    """The place of a mount: the root, or a directory of what was mounted before."""
    if not target.strip("/"):
        return _ROOT
    root = os.open(_ROOT, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, root)
    place = syscalls.openat2(root, target, os.O_PATH, syscalls.RESOLVE_IN_ROOT)
    stack.callback(os.close, place)
    return f"/proc/self/fd/{place}"


def _layers(options: tuple[str, ...]) -> list[str]:
    """The directories of an overlay, the uppermost first; empty ones part data-only layers."""
    upper = [option.partition("=")[2] for option in options if option.startswith("upperdir=")]
    lower = [option.partition("=")[2] for option in options if option.startswith("lowerdir=")]
    found = upper + [
        re.sub(r"\\(.)", r"\1", path) for paths in lower for path in _COLON.split(paths)
    ]
    # The kernel takes no overlay of one directory.
    return found if len(found) > 1 else [_EMPTY, *found]


def _with_short_names(layers: list[str], options: list[str]) -> list[str]:
    """The options of an overlay whose layers are links in the working directory."""
    before = len(os.listdir())  # noqa: PTH208 - the names only
    names = [f"{before + number:x}" if path else "" for number, path in enumerate(layers)]
    for name, path in zip(names, layers, strict=True):
        if path:
            Path(name).symlink_to(path)
    rest = [option for option in options if not option.startswith("lowerdir=")]
    return [f"lowerdir={':'.join(names)}", *rest]


def _unmountable(mounts: tuple[Mount, ...], error: OSError) -> DriverError:
    types = ", ".join(repr(kind) for kind in dict.fromkeys(mount.type[:64] for mount in mounts))
    return DriverError(
        f"the image's snapshot cannot be mounted for a look into it: type {types}",
        details=f"{error.strerror or error}",
        resolution="see the kernel's log (dmesg), or use another snapshotter",
        code=Code.UNSUPPORTED,
    )
