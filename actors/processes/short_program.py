"""Running a small program to its end: CNI plugins, and the one that makes namespaces."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from actors.processes import child_process
from proto.errors import Code, DriverError

_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a program ended, and what it wrote."""

    status: int
    stdout: str
    stderr: str


def run(
    argv: Sequence[str],
    *,
    question: str = "",
    env: Mapping[str, str] | None = None,
    timeout_s: float,
) -> Ended:
    """Starts a program, gives it the question on stdin, and waits. Blocks.

    It has a session of its own: Ctrl-C on the terminal must not cut short what has to be undone.

    Raises:
        DriverError: it does not start, or has not ended in time and was killed.
    """
    with _in_memory("asked") as asked, _in_memory("out") as out, _in_memory("err") as err:
        asked.write(question.encode())
        asked.seek(0)
        try:
            child = child_process.start(
                argv,
                env=env,
                stdin=asked.fileno(),
                stdout=out.fileno(),
                stderr=err.fileno(),
                new_session=True,
            )
        except OSError as error:
            raise DriverError(
                f"{argv[0]} does not start: {error.strerror}", code=Code.UNAVAILABLE
            ) from error
        status = child_process.finish(child, timeout_s)
        stdout, stderr = _written(out), _written(err)
    if status < 0:
        raise DriverError(
            f"{argv[0]} did not end by itself",
            details=f"signal {-status}, after at most {timeout_s:g} s",
            code=Code.TIMEOUT,
        )
    return Ended(status=status, stdout=stdout, stderr=stderr)


def _in_memory(name: str) -> IO[bytes]:
    """A file on no disk: a full one must not keep a network from being removed."""
    return os.fdopen(os.memfd_create(name), "w+b")


def _written(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read(_LIMIT_BYTES).decode(errors="replace")
