"""Runs of small programs: CNI plugins, iptables, runtimes, the program for namespaces."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import IO

from actors.processes import child_process
from proto.errors import Code, DriverError
from proto.values import dataclass

_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Exit status and output of a program that has ended."""

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
    """Runs a program to the end. Blocks.

    The program has a session of its own: Ctrl-C on the terminal must not interrupt a clean-up.

    Args:
        argv: absolute path of the program, and the arguments.
        question: text for stdin.
        env: the whole environment; None is `child_process.BASE_ENVIRONMENT`.
        timeout_s: seconds until the program is killed.

    Raises:
        DriverError: code UNAVAILABLE if the program does not start; TIMEOUT if a signal, perhaps of
            the timeout, ended the program.
    """
    with _in_memory("in") as stdin, _in_memory("out") as out, _in_memory("err") as err:
        stdin.write(question.encode())
        stdin.seek(0)
        try:
            child = child_process.start(
                argv,
                env=env,
                stdin=stdin.fileno(),
                stdout=out.fileno(),
                stderr=err.fileno(),
                new_session=True,
            )
        except OSError as error:
            raise DriverError(
                f"{argv[0]} does not start: {error.strerror}", code=Code.UNAVAILABLE
            ) from error
        status = child_process.finish(child, timeout_s)
        stdout, stderr = _content(out), _content(err)
    if status < 0:
        raise DriverError(
            f"{argv[0]} did not end by itself",
            details=f"signal {-status}, after at most {timeout_s:g} s",
            code=Code.TIMEOUT,
        )
    return Ended(status=status, stdout=stdout, stderr=stderr)


def _in_memory(name: str) -> IO[bytes]:
    """Creates a file in memory: a full disk must not prevent the removal of a network."""
    return os.fdopen(os.memfd_create(name), "w+b")


def _content(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read(_LIMIT_BYTES).decode(errors="replace")
