"""Sets the SELinux context of files that a task gets by a mount, for Docker's options `z` and `Z`.

The files may belong to tasks. So directories are opened one below the other without following
links, and links get a context themselves. Other file systems below the source keep their contexts.
"""

from __future__ import annotations

import errno
import os
import stat

from containerd import syscalls

ATTRIBUTE = "security.selinux"
# Deeper directories keep their contexts: each level holds a descriptor.
_MAX_DEPTH = 128
_INSIDE = syscalls.INSIDE | syscalls.RESOLVE_NO_XDEV
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Docker's list: with another context these directories make the host unusable.
_KEPT = frozenset(
    {
        *(
            "/",
            "/etc",
            "/etc/passwd",
            "/etc/pki",
            "/etc/shadow",
            "/home",
            "/media",
            "/opt",
            "/root",
        ),
        *("/run", "/srv", "/tmp", "/var", "/var/lib", "/var/log"),  # noqa: S108 - the host's
    }
)
_KEPT_TREES = ("/bin", "/boot", "/dev", "/lib", "/lib64", "/proc", "/sbin", "/sys", "/usr")


def is_kept(path: str) -> bool:
    """Returns True for a place of the host whose context no task may change.

    Args:
        path: the path without links.
    """
    return path in _KEPT or any(path == top or path.startswith(f"{top}/") for top in _KEPT_TREES)


def relabel(source: int, context: str) -> None:
    """Sets the context of a file, or of a directory with all below. Blocks.

    The top is last: a top with the context has been set with all files of that time.

    Args:
        source: a descriptor of the file, with O_PATH at least.
        context: the whole context.

    Raises:
        OSError: the kernel refuses; a file system without contexts is no failure.
    """
    value, top = context.encode(), f"/proc/self/fd/{source}"
    if stat.S_ISDIR(os.fstat(source).st_mode):
        directory = os.open(top, _DIRECTORY)
        try:
            _below(directory, value, _MAX_DEPTH)
        finally:
            os.close(directory)
    _set(top, value, link=False)


def _below(directory: int, value: bytes, depth: int) -> None:
    with os.scandir(directory) as entries:
        listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in listed:
        if is_directory:
            try:
                inner = syscalls.openat2(directory, name, _DIRECTORY, _INSIDE)
            except OSError as error:
                # Another file system, or a task has replaced the directory.
                if error.errno in {errno.EXDEV, errno.ELOOP, errno.ENOENT, errno.ENOTDIR}:
                    continue
                raise
            try:
                if depth:
                    _below(inner, value, depth - 1)
            finally:
                os.close(inner)
        _set(f"/proc/self/fd/{directory}/{name}", value, link=True)


def _set(path: str, value: bytes, *, link: bool) -> None:
    """Sets the attribute, unless the file has the value: a write would change the file's time."""
    try:
        # The kernel ends the value with a NUL byte.
        if os.getxattr(path, ATTRIBUTE, follow_symlinks=not link).rstrip(b"\0") == value:
            return
    except OSError:
        pass
    try:
        os.setxattr(path, ATTRIBUTE, value, follow_symlinks=not link)
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTSUP}:
            raise
