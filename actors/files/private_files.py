"""The driver's files in a task's directory, hidden from the task.

A task can fill the files, so they lie below the allocation, on the disk of the task's other files,
and not on the small /run. The directory belongs to the driver: root created the directory, only
root can write there, and the driver follows no link on the way, whatever an artifact has put
beside the directory.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Mapping

from containerd import syscalls
from proto.errors import Code, start_refused
from proto.exhaustion import advice

DIRECTORY = ".etc"
_MOST_BYTES = 4096


def path_below(task_name: str, name: str) -> str:
    """Returns a file's path below the allocation's directory."""
    return f"{task_name}/{DIRECTORY}/{name}"


def write(alloc_dir: str, task_name: str, texts: Mapping[str, str]) -> None:
    """Writes each text under its name, readable for every user of a task. Blocks.

    Args:
        alloc_dir: the allocation's directory.
        task_name: the task, whose directory has the same name.
        texts: by file name; nothing is done without any.

    Raises:
        DriverError: another file is in the place of the directory, or the disk is full.
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
        raise start_refused(
            f"cannot write the task's {', '.join(texts)}",
            advice(error) or "remove the path in the details: the driver creates the directory",
            details=f"{alloc_dir}/{task_name}/{DIRECTORY}: {error.strerror or error}",
            recoverable=True,
            code=Code.EXHAUSTED,
        ) from error


def read(alloc_dir: str, task_name: str, name: str) -> str:
    """Returns the text that an earlier start has written; empty without a file. Blocks."""
    with contextlib.suppress(OSError):
        task = _task_directory(alloc_dir, task_name)
        try:
            directory = _open_own(task)
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
    """Removes the files and their directory, if they exist. Blocks."""
    with contextlib.suppress(OSError):
        task = _task_directory(alloc_dir, task_name)
        try:
            with contextlib.suppress(OSError):
                directory = _open_own(task)
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
        return _open_own(task)
    finally:
        os.close(task)


def _task_directory(alloc_dir: str, task_name: str) -> int:
    root = os.open(alloc_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return syscalls.openat2(root, task_name, os.O_PATH | os.O_DIRECTORY, syscalls.INSIDE)
    finally:
        os.close(root)


def _open_own(task: int) -> int:
    """Opens the directory.

    Raises:
        PermissionError: a user other than root can write to the directory.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    directory = os.open(DIRECTORY, flags, dir_fd=task)
    status = os.fstat(directory)
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
        os.close(directory)
        raise PermissionError(0, "another user can write to the directory")
    return directory


def _replace(directory: int, name: str, content: bytes) -> None:
    """Replaces a file as a whole.

    Never writes into an existing file: a task can have put a link there, or a hard link to a file
    of another task.
    """
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
