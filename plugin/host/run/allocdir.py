"""Directories and log FIFOs of one allocation, in the layout of a Nomad client."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from actors.files import tree_removal
from plugin.host.job import template_path
from plugin.host.job.jobfile import Template
from proto.errors import Code, DriverError
from proto.exhaustion import exhausted

_STREAMS = ("stdout", "stderr")
# open(2) fails at once for a FIFO without a reader, and for a symbolic link.
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TASK_DIRECTORIES = {"local": 0o777, "secrets": 0o777, "tmp": 0o1777, "private": 0o700}


class AllocDir:
    """`<root>/<alloc id>` with the shared `alloc/` and, per task, local, secrets, tmp, private.

    On a Nomad client secrets and private are small tmpfs. Here both are plain directories, so their
    files reach the disk. Only root may enter the allocation's directory; the directories inside are
    open to any user of a task.
    """

    def __init__(self, root: Path, alloc_id: str) -> None:
        self.path = root / alloc_id

    def build(self, tasks: Iterable[str]) -> None:
        """Creates all directories and FIFOs.

        Args:
            tasks: names of the tasks.

        Raises:
            DriverError: code EXHAUSTED, the disk is full; code DENIED for another error.
        """
        try:
            self._build(tasks)
        except OSError as error:
            where = error.filename or self.path
            raise _refused(f"cannot create the allocation's directory {where}", error) from error

    def _build(self, tasks: Iterable[str]) -> None:
        self.path.mkdir(parents=True, mode=0o700)
        shared = self.path / "alloc"
        _make(shared, 0o755)
        for name in ("logs", "data", "tmp"):
            _make(shared / name, 0o777)
        for task in tasks:
            _make(self.path / task, 0o777)
            for name, mode in _TASK_DIRECTORIES.items():
                _make(self.path / task / name, mode)
            for stream in _STREAMS:
                os.mkfifo(self.fifo(task, stream), 0o600)

    def fifo(self, task: str, stream: str) -> Path:
        """Returns the path of the FIFO of a task's `stdout` or `stderr`."""
        return self.path / "alloc" / "logs" / f".{task}.{stream}.fifo"

    def log(self, task: str, stream: str) -> Path:
        """Returns the path of the log files of a task's `stdout` or `stderr`, without number."""
        return self.path / "alloc" / "logs" / f"{task}.{stream}"

    def write(self, task: str, template: Template, destination: str, text: str) -> None:
        """Writes a rendered template below the task's directory or the shared directory.

        Args:
            task: name of the task.
            template: the template, for its mode.
            destination: path with replaced references, relative to the task's directory.
            text: the rendered text.

        Raises:
            DriverError: code INVALID, the destination is not allowed; else as `build`.
        """
        wrong = template_path.problem(destination)
        if wrong:
            raise DriverError(
                f"template: destination {template.destination[:64]!r} {wrong}", code=Code.INVALID
            )
        target = Path(os.path.normpath(self.path / task / destination.lstrip("/")))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(target, _NEW_FILE, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise FileExistsError(errno.EEXIST, "exists and is not a file")
                file.write(text.encode(errors="replace"))
                os.fchmod(descriptor, template.permissions)
        except OSError as error:
            raise _refused(f"cannot write the template's file {target}", error) from error

    def remove(self) -> str:
        """Removes the allocation's directory. Blocks.

        If a file system is mounted in the directory, no file is removed: the mount of a task that
        did not end cleanly has files outside of the allocation.

        Returns:
            The remaining path and the reason; empty if the directory is removed.
        """
        home = os.fsencode(self.path.resolve())
        for line in Path("/proc/self/mountinfo").read_bytes().rstrip().split(b"\n"):
            target = _mount_point(line)
            if target == home or target.startswith(home + b"/"):
                return f"{os.fsdecode(target)}: a file system is mounted: unmount the path"
        return tree_removal.remove(self.path)


def _mount_point(line: bytes) -> bytes:
    """Returns the target of a line of mountinfo; proc(5) has special characters in octal."""
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), line.split(b" ")[4])


def _refused(brief: str, error: OSError) -> DriverError:
    failure = exhausted(brief, error)
    advice = "choose another directory with --alloc-dir"
    if failure.code is Code.EXHAUSTED:
        advice = f"{failure.resolution}; or {advice}"
    code = Code.EXHAUSTED if failure.code is Code.EXHAUSTED else Code.DENIED
    return failure.replaced(details=str(error.strerror), resolution=advice, code=code)


def _make(directory: Path, mode: int) -> None:
    directory.mkdir(exist_ok=True)
    directory.chmod(mode)  # the umask changes the mode of mkdir
