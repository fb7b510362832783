"""The directories and log FIFOs of one allocation, laid out as a Nomad client does."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from plugin.host.jobfile import Template
from proto.errors import Code, DriverError

_STREAMS = ("stdout", "stderr")


class AllocDir:
    """`<root>/<alloc id>` with the shared `alloc/` and, per task, local, secrets and tmp.

    On a real client secrets is a small tmpfs; here it is a directory that only root enters.
    """

    def __init__(self, root: Path, alloc_id: str) -> None:
        self.path = root / alloc_id

    def build(self, tasks: list[str]) -> None:
        """Makes everything.

        Raises:
            OSError: the disk does not take it.
        """
        self.path.mkdir(parents=True)
        for name in ("logs", "data", "tmp"):
            directory = self.path / "alloc" / name
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o777)
        (self.path / "alloc").chmod(0o755)
        for task in tasks:
            for name, mode in (("local", 0o777), ("secrets", 0o700), ("tmp", 0o777)):
                directory = self.path / task / name
                directory.mkdir(parents=True)
                directory.chmod(mode)
            for stream in _STREAMS:
                os.mkfifo(self.fifo(task, stream), 0o600)

    def fifo(self, task: str, stream: str) -> Path:
        """The FIFO of a task's `stdout` or `stderr`."""
        return self.path / "alloc" / "logs" / f".{task}.{stream}.fifo"

    def write(self, task: str, template: Template, text: str) -> None:
        """Writes a rendered template below the task's directory.

        Raises:
            DriverError: code INVALID; its destination leaves the directory.
        """
        base = self.path / task
        target = Path(os.path.normpath(base / template.destination))
        if not target.is_relative_to(base) or target == base:
            raise DriverError(
                f"template: destination {template.destination!r} leaves the task directory",
                resolution='write it like "local/app.conf"',
                code=Code.INVALID,
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(template.permissions)

    def remove(self) -> None:
        """Removes it all."""
        shutil.rmtree(self.path, ignore_errors=True)
