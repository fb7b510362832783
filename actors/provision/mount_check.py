"""Checks a created task's mounts before the task's program starts.

`containerd.spec.final_mounts` has the rules. The functions here list the mounts of the process, and
inspect /dev from the process's root without following links: a link could lead out of the
container. The check takes 0.2 to 0.3 ms.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from pathlib import Path

from containerd import syscalls
from containerd.documents import Document
from containerd.spec import final_mounts
from containerd.spec.final_mounts import Difference
from proto.errors import Code, DriverError, start_refused

_log = logging.getLogger(__name__)


def check(pid: int, spec: Document, *, more: bool = False) -> None:
    """Checks each mount of the spec in a created process. Blocks for a moment.

    Args:
        pid: the created process, whose program has not started.
        spec: the OCI spec that the runtime got.
        more: True for a runtime that adds mounts of its own.

    Raises:
        DriverError: code INVALID; a link has led a mount to another path. Code UNAVAILABLE; the
            process is gone.
    """
    process = Path(f"/proc/{pid}")
    try:
        if (process / "ns/mnt").readlink() == Path("/proc/self/ns/mnt").readlink():
            return  # the mounts are the plugin's own, and no runtime made any
        root = os.open(process / "root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError as error:
        _log.warning("cannot check a task's mounts", extra={"pid": pid, "reason": str(error)})
        return
    except OSError as error:
        raise _gone(error) from error
    try:
        mounted = final_mounts.parse(os.fsdecode((process / "mountinfo").read_bytes()))
        directory = _Root(root)
        difference = final_mounts.first_difference(spec, mounted, directory.node, more=more)
        if difference is not None:
            raise _refusal(difference, directory.link_in(difference.target))
    except OSError as error:
        raise _gone(error) from error
    finally:
        os.close(root)


class _Root:
    """The open root directory of the process."""

    def __init__(self, descriptor: int) -> None:
        self._root = descriptor

    def node(self, name: str) -> int | None:
        """Returns the device number of a character device in /dev; None for other files."""
        try:
            descriptor = syscalls.openat2(
                self._root, f"dev/{name}", os.O_PATH | os.O_NOFOLLOW, syscalls.INSIDE
            )
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV}:
                return None
            raise
        try:
            status = os.fstat(descriptor)
            return status.st_rdev if stat.S_ISCHR(status.st_mode) else None
        finally:
            os.close(descriptor)

    def link_in(self, target: str) -> str:
        """Returns the first link on the way to a path, as `/x -> /dev`; empty without a link."""
        parts = target.strip("/").split("/")
        for count in range(1, len(parts) + 1):
            path = "/".join(parts[:count])
            with contextlib.suppress(OSError):
                descriptor = syscalls.openat2(
                    self._root, path, os.O_PATH | os.O_NOFOLLOW, syscalls.INSIDE
                )
                try:
                    return f"/{path} -> {os.readlink('', dir_fd=descriptor)}"
                except OSError:
                    continue
                finally:
                    os.close(descriptor)
        return ""


def _refusal(difference: Difference, link: str) -> DriverError:
    return start_refused(
        f"mounts: {difference.target[:256]!r}: {difference.reason[:256]}",
        "mount at the real path, and use an image whose /dev, /proc, /sys, /alloc, /local and"
        " /secrets are directories",
        details=f"{link[:256]!r} is a link of the image, or of a directory that a task can write"
        if link
        else "",
    )


def _gone(error: OSError) -> DriverError:
    return DriverError(
        "the task's process ended before the task's program was started",
        details=str(error),
        resolution="start the task again; the kernel's log may have the reason",
        recoverable=True,
        code=Code.UNAVAILABLE,
    )
