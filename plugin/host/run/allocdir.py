"""The directories and log FIFOs of one allocation, laid out as a Nomad client does."""

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
from proto.exhaustion import advice

_STREAMS = ("stdout", "stderr")
# A FIFO without a reader refuses at once, and a link is not followed.
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TASK_DIRECTORIES = {"local": 0o777, "secrets": 0o777, "tmp": 0o1777, "private": 0o700}


class AllocDir:
    """`<root>/<alloc id>` with the shared `alloc/` and, per task, local, secrets, tmp, private.

    On a Nomad client secrets and private are small tmpfs. Here they are plain directories, so
    what is in them reaches the disk; the allocation's own directory lets only root in, which
    leaves the ones below open to whatever user a task runs as.
    """

    def __init__(self, root: Path, alloc_id: str) -> None:
        self.path = root / alloc_id

    def build(self, tasks: Iterable[str]) -> None:
        """Makes everything.

        Raises:
            DriverError: code DENIED, or EXHAUSTED where the disk is full.
        """
        try:
            self._build(tasks)
        except OSError as error:
            where = error.filename or self.path
            raise _refused(f"cannot make the allocation's directory {where}", error) from error

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
        """The FIFO of a task's `stdout` or `stderr`."""
        return self.path / "alloc" / "logs" / f".{task}.{stream}.fifo"

    def write(self, task: str, template: Template, destination: str, text: str) -> None:
        """Writes a rendered template below the task's directory or the shared one.

        Raises:
            DriverError: code INVALID, its destination leaves both; else what `build` raises.
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
                    raise FileExistsError(errno.EEXIST, "something else is there")
                file.write(text.encode(errors="replace"))
                os.fchmod(descriptor, template.permissions)
        except OSError as error:
            raise _refused(f"cannot write the template's file {target}", error) from error

    def remove(self) -> str:
        """Removes the allocation's directory. Blocks.

        Nothing is removed where something is mounted in the directory: a task that did not end
        cleanly has left somebody else's files there.

        Returns:
            What stays, and why; empty where all is removed.
        """
        home = os.fsencode(self.path.resolve())
        for line in Path("/proc/self/mountinfo").read_bytes().rstrip().split(b"\n"):
            target = _mount_point(line)
            if target == home or target.startswith(home + b"/"):
                return f"{os.fsdecode(target)}: something is mounted there: unmount it"
        return tree_removal.remove(self.path)


def _mount_point(line: bytes) -> bytes:
    """Returns the target of a line of mountinfo; proc(5) writes odd characters in octal."""
    return re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), line.split(b" ")[4])


def _refused(brief: str, error: OSError) -> DriverError:
    words = advice(error)
    return DriverError(
        brief,
        details=str(error.strerror),
        resolution=f"{words}; or choose another place with --alloc-dir".removeprefix("; or "),
        code=Code.EXHAUSTED if words else Code.DENIED,
    )


def _make(directory: Path, mode: int) -> None:
    directory.mkdir(exist_ok=True)
    directory.chmod(mode)  # mkdir's own mode is cut by the umask
