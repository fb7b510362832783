"""Files of the driver in a task's directory, where the task does not see them.

They lie below the allocation, as big as a task may write them: on the disk that its other files
fill, not on the small /run. The directory is the driver's own: root made it, nobody else may write
there, and no link leads to it or away from it, whatever an artifact has put beside it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Mapping

from containerd import syscalls
from proto.errors import Code, DriverError
from proto.exhaustion import remedy

DIRECTORY = ".etc"
_MOST_BYTES = 4096
_BENEATH = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS


def path_below(task_name: str, name: str) -> str:
    """Returns where a file lies, from the allocation's directory."""
    return f"{task_name}/{DIRECTORY}/{name}"


def write(alloc_dir: str, task_name: str, texts: Mapping[str, str]) -> None:
    """Writes each text under its name, readable for every user of a task. Blocks.

    Raises:
        DriverError: something else is where the directory should be, or the disk is full.
    """
    if not texts:
        return
    try:
        directory = _open(alloc_dir, task_name)
        try:
            for name, text in texts.items():
                _replace(directory, name, text.encode())
        finally:
            os.close(directory)
    except OSError as error:
        raise DriverError(
            f"Error in creating container: the task's {', '.join(texts)} cannot be written",
            details=f"{alloc_dir}/{task_name}/{DIRECTORY}: {error.strerror or error}",
            resolution=remedy(error)
            or "the driver makes this directory itself: remove what is there",
            recoverable=True,
            code=Code.EXHAUSTED,
        ) from error


def read(alloc_dir: str, task_name: str, name: str) -> str:
    """The text that an earlier start has written; "" if there is none. Blocks."""
    with contextlib.suppress(OSError):
        task = _task_directory(alloc_dir, task_name)
        try:
            directory = _own(task)
            try:
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
                descriptor = os.open(name, flags, dir_fd=directory)
                try:
                    return os.read(descriptor, _MOST_BYTES).decode(errors="replace")
                finally:
                    os.close(descriptor)
            finally:
                os.close(directory)
        finally:
            os.close(task)
    return ""


def remove(alloc_dir: str, task_name: str) -> None:
    """Removes the files and their directory; gone is done. Blocks."""
    with contextlib.suppress(OSError):
        task = _task_directory(alloc_dir, task_name)
        try:
            with contextlib.suppress(OSError):
                directory = _own(task)
                try:
                    for name in os.listdir(directory):  # noqa: PTH208 - pathlib takes none
                        os.unlink(name, dir_fd=directory)
                finally:
                    os.close(directory)
            os.rmdir(DIRECTORY, dir_fd=task)
        finally:
            os.close(task)


def _open(alloc_dir: str, task_name: str) -> int:
    task = _task_directory(alloc_dir, task_name)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(DIRECTORY, 0o755, dir_fd=task)
        return _own(task)
    finally:
        os.close(task)


def _task_directory(alloc_dir: str, task_name: str) -> int:
    root = os.open(alloc_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return syscalls.openat2(root, task_name, os.O_PATH | os.O_DIRECTORY, _BENEATH)
    finally:
        os.close(root)


def _own(task: int) -> int:
    """The directory, if it is one that nobody but root may write to."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    directory = os.open(DIRECTORY, flags, dir_fd=task)
    found = os.fstat(directory)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
        os.close(directory)
        raise PermissionError(0, "it belongs to somebody else")
    return directory


def _replace(directory: int, name: str, content: bytes) -> None:
    """Never writes into a file that is there: it may be a link, or another task's by a hard one."""
    new = f".{name}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(new, flags, 0o644, dir_fd=directory)
    try:
        os.fchmod(descriptor, 0o644)
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.rename(new, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new, dir_fd=directory)
        raise
    finally:
        os.close(descriptor)
