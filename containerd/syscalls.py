"""System calls that Python's os module lacks: openat2, setns, and those for mounts."""

from __future__ import annotations

import ctypes
import os
import stat
import threading
from collections.abc import Callable
from typing import TypeVar

# These have the same number on every architecture.
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_OPENAT2 = 428, 429, 437
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
_AT_FDCWD = -100
_TRIES = 128
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
"""For a path below a directory that others can write to: no way out, and no link at all."""
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
CLONE_FS = 0x00000200
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8

T = TypeVar("T")
_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def openat2(directory: int, path: str, flags: int, resolve: int) -> int:
    """Opens a path, resolved from an open directory.

    Args:
        directory: descriptor of the directory.
        path: the path, relative to the directory.
        flags: flags of open(2); O_CLOEXEC is added.
        resolve: RESOLVE_* flags, such as INSIDE.

    Returns:
        The descriptor.

    Raises:
        OSError: as of open(2); EXDEV for a path that leaves the directory, ELOOP for a link.
        ValueError: the path has a NUL byte, at which the kernel would cut the path off.
    """
    name = os.fsencode(path)
    if b"\0" in name:
        raise ValueError("a path has no NUL byte")
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    tries = 0
    while True:
        try:
            return _check(
                _libc.syscall(
                    ctypes.c_long(_SYS_OPENAT2),
                    ctypes.c_int(directory),
                    ctypes.c_char_p(name),
                    ctypes.byref(how),
                    ctypes.c_size_t(ctypes.sizeof(how)),
                ),
                path,
            )
        except BlockingIOError:
            # EAGAIN: a rename during the call, so that the kernel cannot be sure of "..". The
            # tries are limited, because a task may rename without end.
            tries += 1
            if tries == _TRIES:
                raise


def open_plain(directory: int, path: str, resolve: int) -> int:
    """Opens a regular file or a directory for reading, and any other file with O_PATH only.

    The path may lead to a device, and opening a device can have effects: starting a watchdog,
    rewinding a tape. fstat of the descriptor tells the kind of the file.

    Args:
        directory: descriptor of the directory.
        path: the path, relative to the directory.
        resolve: RESOLVE_* flags, such as INSIDE.

    Returns:
        The descriptor.

    Raises:
        OSError: see `openat2`.
    """
    named = openat2(directory, path, os.O_PATH, resolve)
    mode = os.fstat(named).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        return named
    try:
        # The checked file itself, even if the path leads to another file by now.
        return os.open(f"/proc/self/fd/{named}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(named)


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Mounts a file system, or binds with MS_BIND.

    Args:
        source: device, or path of a bind.
        target: mount point.
        kind: type of the file system; empty for a bind.
        flags: MS_* flags.
        data: options of the file system.

    Raises:
        OSError: of the kernel; `filename` is the target.
    """
    _check(
        _libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            os.fsencode(kind),
            ctypes.c_ulong(flags),
            os.fsencode(data),
        ),
        target,
    )


def copy_mount(directory: int) -> int:
    """Returns a descriptor of a copy of the mount at an open directory, attached nowhere.

    Args:
        directory: a descriptor of the mount namespace of the calling thread.

    Raises:
        OSError: of the kernel.
    """
    flags = _OPEN_TREE_CLONE | _AT_EMPTY_PATH | os.O_CLOEXEC
    call = ctypes.c_long(_SYS_OPEN_TREE)
    made = _libc.syscall(call, ctypes.c_int(directory), ctypes.c_char_p(b""), ctypes.c_uint(flags))
    return _check(made, "open_tree")


def attach_mount(mount: int, target: str) -> None:
    """Attaches a mount of `copy_mount` at a directory, also one of another mount namespace.

    Raises:
        OSError: of the kernel; `filename` is the target.
    """
    moved = _libc.syscall(
        ctypes.c_long(_SYS_MOVE_MOUNT),
        ctypes.c_int(mount),
        ctypes.c_char_p(b""),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(target)),
        ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH),
    )
    _check(moved, target)


def unmount(target: str) -> None:
    """Detaches the mount at the target with all mounts below; follows no link.

    Raises:
        OSError: EINVAL for a target without a mount.
    """
    _check(_libc.umount2(os.fsencode(target), ctypes.c_int(_MNT_DETACH | _UMOUNT_NOFOLLOW)), target)


def unshare(flags: int) -> None:
    """Gives the calling thread new namespaces.

    Raises:
        OSError: of the kernel.
    """
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """Moves the calling thread into a namespace.

    Args:
        descriptor: an open file of /proc/PID/ns.
        kind: CLONE_NEW* flag of the namespace's type.

    Raises:
        OSError: of the kernel.
    """
    _check(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)), "setns")


def in_a_thread_of_its_own(work: Callable[[], T]) -> T:
    """Runs work that changes the namespaces of its thread, in a new thread. Blocks.

    The namespaces end with the thread, unless a file or a process keeps them.

    Raises:
        BaseException: the error of `work`.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - carried to the caller
            errors.append(error)

    thread = threading.Thread(target=run, name="namespaces")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _check(status: int, what: str) -> int:
    if status < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return status
