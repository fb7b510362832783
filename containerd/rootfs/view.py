"""Reads the root of a snapshot through a private mount.

`read_root` mounts the snapshot in a mount namespace of the reading thread. No other process sees
the mount, and no mount stays when the plugin is killed. The driver writes nothing to the snapshot:
an overlay's upper directory becomes the uppermost lower directory, as in containerd's own read-only
mounts. A mount with an upper directory would leave marks in the work directory (option `volatile`).

mount(2) reads a page of options and cuts longer options silently. So each lower directory gets a
short name, a link in a tmpfs of the namespace. Short names suffice for 500 layers, the kernel's
limit. fsconfig(2) accepts the directories' own names only from Linux 6.8.
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
# No snapshot lies below /sys, and only the reading thread sees the tmpfs over /sys.
_BASE = "/sys"
_ROOT = f"{_BASE}/root"
_LAYERS = f"{_BASE}/layers"
_EMPTY = f"{_BASE}/empty"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_FLAGS = {
    "bind": syscalls.MS_BIND,
    "rbind": syscalls.MS_BIND | syscalls.MS_REC,
    "nosuid": syscalls.MS_NOSUID,
    "nodev": syscalls.MS_NODEV,
    "noexec": syscalls.MS_NOEXEC,
}
# Flags of mount(8) that have no effect on a reader, and options of writers.
_NEEDLESS = frozenset(
    {
        *("ro", "rw", "suid", "dev", "exec", "async", "sync", "dirsync", "mand", "nomand"),
        *("defaults", "remount", "atime", "noatime", "diratime", "nodiratime", "relatime"),
        *("norelatime", "strictatime", "nostrictatime", "volatile"),
    }
)
_OF_WRITERS = ("upperdir=", "workdir=", "fsync=", "uidmap=", "gidmap=", "extraoption=")
# Types with the options of the kernel's overlay. containerd mounts the others by helper programs.
_OVERLAYS = frozenset({"overlay", "fuse3.fuse-overlayfs", "fuse.nydus-overlayfs"})
# `\:` is a colon in a path.
_COLON = re.compile(r"(?<!\\):")


def read_root(mounts: tuple[Mount, ...], read: Callable[[int], T]) -> T:
    """Mounts a snapshot, calls `read` with the root, unmounts. Blocks: call it in an executor.

    Args:
        mounts: the snapshotter's mounts of a snapshot that no task has mounted yet.
        read: gets a descriptor (O_PATH) of the root, which is closed afterwards. `read` must close
            all descriptors below the root, and must resolve paths by `syscalls.openat2` with
            RESOLVE_IN_ROOT, because the links are the image's.

    Returns:
        The result of `read`.

    Raises:
        DriverError: code UNSUPPORTED; the snapshot cannot be mounted.
        BaseException: the exception of `read`.
    """

    def work() -> T:
        with ExitStack() as stack:
            _enter_own_namespace()
            try:
                for mount, path in mount_chain.resolve(mounts, _path_of):
                    _mount(mount, path, stack)
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
        syscalls.mount("tmpfs", _BASE, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=0700")
        for directory in (_ROOT, _LAYERS, _EMPTY):
            Path(directory).mkdir()
        os.chdir(_LAYERS)
    except OSError as error:
        raise DriverError(
            "cannot create a private mount namespace to read images",
            details=f"{error.strerror or error}",
            resolution="run the agent as root, with the right to mount",
            code=Code.UNSUPPORTED,
        ) from error


def _path_of(number: int) -> str:
    return f"{_BASE}/mount{number}"


def _mount(mount: Mount, path: str, stack: ExitStack) -> None:
    """Mounts at a path, or in the root if the path is empty."""
    if path:
        Path(path).mkdir()
    target = path or _in_root(mount.target, stack)
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
        raise OSError(f"the mount options are longer than {_PAGE_BYTES} bytes")
    syscalls.mount(source, target, kind, flags, data)
    if target == _ROOT or path:
        # Unmounted before the thread ends: while a device is mounted read-only, a writable mount of
        # the device fails, and the task needs a writable mount.
        stack.callback(syscalls.unmount, target)


def _in_root(target: str, stack: ExitStack) -> str:
    """Returns the path of a mount's target: the root, or a directory of earlier mounts."""
    if not target.strip("/"):
        return _ROOT
    root = os.open(_ROOT, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, root)
    directory = syscalls.openat2(root, target, os.O_PATH, syscalls.RESOLVE_IN_ROOT)
    stack.callback(os.close, directory)
    return f"/proc/self/fd/{directory}"


def _layers(options: tuple[str, ...]) -> list[str]:
    """Lists the directories of an overlay, the uppermost first.

    An empty name separates data-only layers from the others.
    """
    upper = [option.partition("=")[2] for option in options if option.startswith("upperdir=")]
    lower = [option.partition("=")[2] for option in options if option.startswith("lowerdir=")]
    layers = upper + [
        re.sub(r"\\(.)", r"\1", path) for paths in lower for path in _COLON.split(paths)
    ]
    # The kernel refuses an overlay of a single directory.
    return layers if len(layers) > 1 else [_EMPTY, *layers]


def _with_short_names(layers: list[str], options: list[str]) -> list[str]:
    """Links the layers in the working directory. Returns options with the links' names."""
    existing = len(os.listdir())  # noqa: PTH208 - the names only
    names = [f"{existing + number:x}" if path else "" for number, path in enumerate(layers)]
    for name, path in zip(names, layers, strict=True):
        if path:
            Path(name).symlink_to(path)
    rest = [option for option in options if not option.startswith("lowerdir=")]
    return [f"lowerdir={':'.join(names)}", *rest]


def _unmountable(mounts: tuple[Mount, ...], error: OSError) -> DriverError:
    types = ", ".join(repr(kind) for kind in dict.fromkeys(mount.type[:64] for mount in mounts))
    return DriverError(
        f"cannot mount the image's snapshot to read the image: type {types}",
        details=f"{error.strerror or error}",
        resolution="see the kernel's log (dmesg), or use another snapshotter",
        code=Code.UNSUPPORTED,
    )
