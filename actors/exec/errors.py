"""Short errors for commands that a runtime cannot run, in the same words for every runtime.

Runtimes wrap a cause of five words in sentences of their own. The user needs the program's name
and the cause. An error of `nomad alloc exec` has room for 90 bytes: see `plugin.rpc.grpc_status`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from proto.errors import Code, DriverError

_SHORT_NAME, _SHORT_PLACE = 30, 40
_DIRECTORY = re.compile(r"chdir|working directory", re.IGNORECASE)
_GONE = re.compile(r"no such file or directory|not a directory", re.IGNORECASE)
_PAUSED = re.compile(r"\bpaused\b", re.IGNORECASE)
# runc: exec: "/x": stat /x: …; crun: executable file `x` …, open executable: …, exec `x`: …;
# gVisor: failed to load /x: …, error finding executable "x" in PATH …
_PROGRAM = re.compile(
    r'exec: "|exec `|executable file|open executable|failed to load|finding executable',
    re.IGNORECASE,
)
# A runtime that looks a path up may end with the words for a path and with those for a name.
_CAUSES = (
    (re.compile(r"permission denied|operation not permitted", re.IGNORECASE), "permission denied"),
    (re.compile(r"exec format error", re.IGNORECASE), "exec format error"),
    (re.compile(r"is a directory", re.IGNORECASE), "is a directory"),
    (re.compile(r"not a directory", re.IGNORECASE), "not a directory"),
    (
        re.compile(r"not found in \$?PATH|in PATH \[", re.IGNORECASE),
        "executable file not found in $PATH",
    ),
    (re.compile(r"no such file or directory", re.IGNORECASE), "no such file or directory"),
)
_NOT_IN_PATH = _CAUSES[4][1]


def directory_is_gone(error: DriverError) -> bool:
    """Returns whether the cause is that the command's working directory is gone."""
    return bool(_DIRECTORY.search(error.details) and _GONE.search(error.details))


def in_few_words(error: DriverError, command: Sequence[str], directory: str) -> DriverError:
    """The error of a command in few words; where the cause is unknown, without its arguments."""
    program = command[0]
    if _PAUSED.search(error.details):
        return _refused("the task is paused: no command can be run until it is resumed")
    if _DIRECTORY.search(error.details):
        causes = (words for cause, words in _CAUSES if cause.search(error.details))
        place = _end(directory, _SHORT_PLACE)
        return _refused(f"working directory {place}: {next(causes, 'unusable')}")
    if _PROGRAM.search(error.details):
        # The name may hold the words of a cause.
        said = error.details.replace(program, "")
        for cause, words in _CAUSES:
            if cause.search(said) and not (words is _NOT_IN_PATH and "/" in program):
                return _refused(f"cannot run {_end(program, _SHORT_NAME)}: {words}")
    return _without_arguments(error, command)


def _without_arguments(error: DriverError, command: Sequence[str]) -> DriverError:
    """The error in which gVisor's words for a command name only its program."""
    return DriverError(
        error.brief,
        details=error.details.replace(" ".join(command), command[0]),
        resolution=error.resolution,
        recoverable=error.recoverable,
        code=error.code,
    )


def _refused(brief: str) -> DriverError:
    return DriverError(brief, code=Code.INVALID)


def _end(text: str, most: int) -> str:
    return (
        text if len(text.encode()) <= most else f"…{text.encode()[-most:].decode(errors='ignore')}"
    )
