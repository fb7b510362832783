"""Short errors for commands that a runtime cannot run. The texts are the same for all runtimes.

Runtimes wrap a cause of five words in long sentences. A user needs the program's name and the
cause. An error of `nomad alloc exec` has space for 90 bytes: see `plugin.rpc.grpc_status`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from proto.errors import Code, DriverError

_SHORT_NAME, _SHORT_PATH = 30, 40
_DIRECTORY = re.compile(r"chdir|working directory", re.IGNORECASE)
_GONE = re.compile(r"no such file or directory|not a directory", re.IGNORECASE)
_PAUSED = re.compile(r"\bpaused\b", re.IGNORECASE)
# runc: exec: "/x": stat /x: …; crun: executable file `x` …, open executable: …, exec `x`: …;
# gVisor: failed to load /x: …, error finding executable "x" in PATH …
_PROGRAM = re.compile(
    r'exec: "|exec `|executable file|open executable|failed to load|finding executable',
    re.IGNORECASE,
)
# For a path, a runtime may add the cause of a path and the cause of a name.
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
    """Returns True if the cause is the loss of the command's working directory."""
    return bool(_DIRECTORY.search(error.details) and _GONE.search(error.details))


def in_few_words(error: DriverError, command: Sequence[str], directory: str) -> DriverError:
    """Shortens the error of a command to the program's name and the cause.

    Args:
        error: the runtime's error.
        command: the program and the arguments.
        directory: the working directory of the command.

    Returns:
        A short error of code INVALID; for an unknown cause the runtime's error without the
        command's arguments.
    """
    program = command[0]
    if _PAUSED.search(error.details):
        return _refused("the task is paused: no command can be run until it is resumed")
    if _DIRECTORY.search(error.details):
        causes = (words for cause, words in _CAUSES if cause.search(error.details))
        path = _end(directory, _SHORT_PATH)
        return _refused(f"working directory {path}: {next(causes, 'unusable')}")
    if _PROGRAM.search(error.details):
        # The program's name may contain the words of a cause.
        text = error.details.replace(program, "")
        for cause, words in _CAUSES:
            if cause.search(text) and not (words is _NOT_IN_PATH and "/" in program):
                return _refused(f"cannot run {_end(program, _SHORT_NAME)}: {words}")
    return _without_arguments(error, command)


def _without_arguments(error: DriverError, command: Sequence[str]) -> DriverError:
    """Removes the arguments from gVisor's error, which quotes the whole command."""
    return error.replaced(details=error.details.replace(" ".join(command), command[0]))


def _refused(brief: str) -> DriverError:
    return DriverError(brief, code=Code.INVALID)


def _end(text: str, most: int) -> str:
    return (
        text if len(text.encode()) <= most else f"…{text.encode()[-most:].decode(errors='ignore')}"
    )
