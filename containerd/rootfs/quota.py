"""Limits the files that a container writes: a project quota of ext4 or xfs on its snapshot.

The kernel counts all files below a directory with a project's number and the flag "inherit". So
the limit holds for the writable layer of an overlay, and the image's layers do not count. The file
system must be mounted with `prjquota`.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import struct
import zlib
from collections.abc import Generator, Sequence
from pathlib import Path

from containerd.api.records import Mount
from proto.errors import Code, DriverError, start_refused

# quotactl_fd has the same number on every architecture; Linux 5.14 and newer.
_SYS_QUOTACTL_FD = 443
_PROJECT = 2
_GET_STATE, _SET_LIMIT, _GET_QUOTA = ((0x5800 + call) << 8 | _PROJECT for call in (5, 4, 3))
_ENFORCED = 1 << 5
_HARD_AND_SOFT = 1 << 3 | 1 << 2
_BLOCK_BYTES = 512
# struct fs_disk_quota: version, flags, mask, project, limits of blocks, limits of inodes, counts.
_QUOTA = struct.Struct("=bbHI QQ QQ QQ 56x")
_STATE = struct.Struct("=bxH 76x")
# struct fsxattr and its flag for new files.
_ATTRIBUTES = struct.Struct("=IIIII 8x")
_GET_ATTRIBUTES, _SET_ATTRIBUTES = 0x801C581F, 0x401C5820
_INHERIT = 0x200
# Numbers of other programs, such as Docker's, count up from 1.
_FIRST_PROJECT, _PROJECTS = 1 << 30, 1 << 30
_TRIES = 64
_libc = ctypes.CDLL(None, use_errno=True)


def check(root: str) -> None:
    """Checks whether a file system limits projects. Blocks.

    Args:
        root: the data directory of the snapshotter.

    Raises:
        DriverError: code UNSUPPORTED; the limit would have no effect.
    """
    with _opened(root) as directory:
        _check(directory, root)


def limit(mounts: Sequence[Mount], size_bytes: int) -> str:
    """Limits a new snapshot. Blocks.

    Args:
        mounts: the mounts of the snapshot, which no container uses yet.
        size_bytes: most bytes of the files that the container writes.

    Returns:
        The limit, for `release`.

    Raises:
        DriverError: code UNSUPPORTED; the snapshot or the file system cannot be limited.
    """
    options = mounts[-1].options if mounts else ()
    found = {key: value for key, _, value in (option.partition("=") for option in options)}
    if "upperdir" not in found or "workdir" not in found:
        raise _refused("the snapshotter has no directory of its own for a container's files")
    upper = found["upperdir"]
    with _opened(upper) as directory, _opened(found["workdir"]) as work:
        _check(directory, upper)
        project = _unused(directory, upper)
        _set(directory, project, size_bytes)
        # A rename between the two directories needs the same project.
        for descriptor in (directory, work):
            _join(descriptor, project)
    return f"{project} {Path(upper).parent.parent}"


def release(text: str) -> None:
    """Removes the limit of a snapshot that is gone. Blocks; an absent file system is no failure.

    Args:
        text: the result of `limit`.
    """
    project, _, place = text.partition(" ")
    with contextlib.suppress(DriverError, OSError), _opened(place) as directory:
        _set(directory, int(project), 0)


@contextlib.contextmanager
def _opened(path: str) -> Generator[int, None, None]:
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise _refused(f"cannot open {path[:128]}: {error.strerror}") from error
    try:
        yield directory
    finally:
        os.close(directory)


def _check(directory: int, path: str) -> None:
    state = ctypes.create_string_buffer(_STATE.size)
    try:
        _call(directory, _GET_STATE, 0, state)
        (_, flags) = _STATE.unpack(state.raw)
    except OSError:
        flags = 0
    if not flags & _ENFORCED:
        raise _refused(f"the file system of {path[:128]} does not enforce quotas of projects")


def _unused(directory: int, path: str) -> int:
    """Returns the number of a project without files and without a limit."""
    first = zlib.crc32(os.fsencode(path))
    for number in range(first, first + _TRIES):
        project = _FIRST_PROJECT + number % _PROJECTS
        if not any(usage(directory, project)):
            return project
    raise _refused("all tried numbers of projects are in use")


def usage(directory: int, project: int) -> tuple[int, int, int]:
    """Returns a project's limit and use in bytes, and the number of its files."""
    quota = ctypes.create_string_buffer(_QUOTA.size)
    try:
        _call(directory, _GET_QUOTA, project, quota)
    except OSError:
        return 0, 0, 0  # the file system has no record of the project
    _, _, _, _, hard, _, _, _, blocks, files = _QUOTA.unpack(quota.raw)
    return hard * _BLOCK_BYTES, blocks * _BLOCK_BYTES, files


def _set(directory: int, project: int, size_bytes: int) -> None:
    blocks = -(-size_bytes // _BLOCK_BYTES)
    packed = _QUOTA.pack(1, _PROJECT, _HARD_AND_SOFT, project, blocks, blocks, 0, 0, 0, 0)
    try:
        _call(directory, _SET_LIMIT, project, ctypes.create_string_buffer(packed, _QUOTA.size))
    except OSError as error:
        raise _refused(f"the kernel refuses the limit: {error.strerror}") from error


def _join(directory: int, project: int) -> None:
    try:
        packed = fcntl.ioctl(directory, _GET_ATTRIBUTES, bytes(_ATTRIBUTES.size))
        flags, extent, extents, _, copied = _ATTRIBUTES.unpack(packed)
        wanted = _ATTRIBUTES.pack(flags | _INHERIT, extent, extents, project, copied)
        fcntl.ioctl(directory, _SET_ATTRIBUTES, wanted)
    except OSError as error:
        raise _refused(f"the file system takes no project: {error.strerror}") from error


def _call(directory: int, command: int, project: int, into: ctypes.Array[ctypes.c_char]) -> None:
    result = _libc.syscall(
        ctypes.c_long(_SYS_QUOTACTL_FD),
        ctypes.c_int(directory),
        ctypes.c_uint(command),
        ctypes.c_uint(project),
        into,
    )
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _refused(reason: str) -> DriverError:
    return start_refused(
        f"storage_opt: the size of a container's files cannot be limited on this node: {reason}",
        "use the snapshotter overlayfs on ext4 (mkfs -O quota,project) or xfs, mounted with"
        " prjquota; or ephemeral_disk, a volume of limited size, or readonly_rootfs with a tmpfs",
        code=Code.UNSUPPORTED,
    )
