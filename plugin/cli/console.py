"""What the commands share: their streams, and how each of them ends.

A stream may be closed from the start, its reader may leave (`| head -1`), its disk may be full, and
Ctrl-C may come at any moment: none of it is a traceback.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, TextIO

from plugin.texts import indented
from proto.errors import DriverError

_MIN_WIDTH = 16
WRONG_OPTIONS = 2
INTERRUPTED = 130
"""What a shell gives for Ctrl-C."""


def guarded(command: Callable[[], int]) -> int:
    """Runs a command and returns its exit status, whatever becomes of its streams."""
    _open_closed()
    try:
        return command()
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except DriverError as error:
        complain(str(error))
        return 1


def show(text: str) -> None:
    """Writes a command's result to stdout, as it is: its cells are `plain_text.one_line`.

    Raises:
        DriverError: it cannot be written, as on a full disk.
    """
    with _until_nobody_reads(sys.stdout):
        try:
            sys.stdout.buffer.write(text.encode(errors="replace"))
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            _into_nothing(sys.stdout)
            raise DriverError(f"standard output cannot be written: {error.strerror}") from error


def json_lines(things: Iterable[dict[str, Any]]) -> str:
    """One JSON object per line."""
    return "".join(f"{json.dumps(thing)}\n" for thing in things)


def complain(text: str) -> None:
    """Says on stderr what went wrong."""
    report(f"error: {text}")


def report(text: str) -> None:
    """Writes a line to stderr, which says nothing to a terminal but text."""
    write(sys.stderr, f"{indented(text)}\n".encode())


def write(out: TextIO, data: bytes) -> None:
    """Writes it at once; what cannot be written ends nothing, it is said once and dropped."""
    with _until_nobody_reads(out):
        try:
            out.buffer.write(data)
            out.buffer.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            _into_nothing(out)
            if out is sys.stdout:
                complain(
                    f"standard output cannot be written, the rest of it is lost: {error.strerror}"
                )


class Unfailing(io.TextIOBase):
    """Stdout for a library to which a terminal that went away would be an exception."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        """See `console.write`."""
        write(sys.stdout, text.encode(errors="replace"))
        return len(text)

    def isatty(self) -> bool:
        """Returns whether it is a terminal."""
        return sys.stdout.isatty()

    def fileno(self) -> int:
        """The number of stdout."""
        return sys.stdout.fileno()


@contextlib.contextmanager
def _until_nobody_reads(out: TextIO) -> Generator[None, None, None]:
    try:
        yield
    except BrokenPipeError:
        _into_nothing(out)
    except ValueError:
        pass  # closed by whoever embeds this


def _into_nothing(out: TextIO) -> None:
    """What is buffered goes too: the interpreter's own flush at exit would complain else."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, out.fileno())
    os.close(null)


def _open_closed() -> None:
    """Gives the process the streams that it lacks: the next file would take their place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # The lowest number that is free: this one's.
            null = Path(os.devnull).open("w" if number else "r")  # noqa: SIM115 - for good
            setattr(sys, name, null)


def terminal_width() -> int:
    """How wide the terminal is that stdout is; 0 where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0


def wrapped(text: str, width: int) -> list[str]:
    """Lines of whole words, for paths and commands are copied; without room for a few, one line."""
    if width < _MIN_WIDTH:
        return [text]
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def filled(text: str) -> str:
    """Paragraphs as wide as the terminal, as argparse has its own lines."""
    width = max(shutil.get_terminal_size().columns - 2, 20)
    return "\n\n".join(
        textwrap.fill(" ".join(words.split()), width, break_on_hyphens=False)
        for words in text.split("\n\n")
    )
