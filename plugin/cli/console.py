"""Output of the commands: streams, exit statuses, tables and colours.

A standard stream may be closed from the start, a reader may leave (`| head -1`), a disk may be
full, and Ctrl-C may come at any moment. None of these ends a command with a traceback.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO, TypeVar

from plugin.texts import indented
from proto.errors import DriverError

WRONG_OPTIONS = 2
INTERRUPTED = 130
"""A shell's exit status for Ctrl-C."""
GREEN, YELLOW, RED = "\033[32m", "\033[33m", "\033[1;31m"
_PLAIN = "\033[0m"
_MIN_WIDTH = 16
Row = TypeVar("Row")
Row_contra = TypeVar("Row_contra", contravariant=True)


class Table(Protocol[Row_contra]):
    """A function that formats rows for people."""

    def __call__(self, rows: Sequence[Row_contra], *, colours: bool = False, width: int = 0) -> str:
        """Returns lines, at most `width` characters long if `width` is not 0."""
        ...


def guarded(command: Callable[[], int]) -> int:
    """Runs a command and returns its exit status; reports errors and Ctrl-C on stderr."""
    _open_closed_streams()
    try:
        return command()
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except DriverError as error:
        complain(str(error))
        return 1


def show(text: str) -> None:
    """Writes the result of a command to stdout, unchanged.

    Raises:
        DriverError: stdout cannot be written, for example because of a full disk.
    """
    with _until_closed(sys.stdout):
        try:
            sys.stdout.buffer.write(text.encode(errors="replace"))
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            _discard_output(sys.stdout)
            raise DriverError(f"standard output cannot be written: {error.strerror}") from error


def show_rows(rows: Sequence[Row], table: Table[Row], *, as_json: bool) -> None:
    """Writes dataclasses to stdout, as a table or as a JSON object per line.

    Raises:
        DriverError: stdout cannot be written.
    """
    if as_json:
        import dataclasses  # noqa: PLC0415 - help and version need no dataclass

        show(json_lines([dataclasses.asdict(row) for row in rows]))  # type: ignore[call-overload]
    else:
        show(table(rows, colours=sys.stdout.isatty(), width=_terminal_width()))


def json_lines(objects: Sequence[dict[str, Any]]) -> str:
    """Returns a JSON object per line."""
    import json  # noqa: PLC0415 - as in `show_rows`

    return "".join(f"{json.dumps(item)}\n" for item in objects)


def complain(text: str) -> None:
    """Writes an error to stderr."""
    report(f"error: {text}")


def report(text: str) -> None:
    """Writes a line of plain text to stderr."""
    write(sys.stderr, f"{indented(text)}\n".encode())


def write(out: TextIO, data: bytes) -> None:
    """Writes data at once; if a write fails, reports the failure once and drops later data."""
    with _until_closed(out):
        try:
            out.buffer.write(data)
            out.buffer.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            _discard_output(out)
            if out is sys.stdout:
                complain(f"standard output cannot be written, the rest is lost: {error.strerror}")


class UnfailingStdout(io.TextIOBase):
    """Stdout for a library that would raise an exception for a closed terminal."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        """Writes text as `console.write` does."""
        write(sys.stdout, text.encode(errors="replace"))
        return len(text)

    def isatty(self) -> bool:
        """Returns True if stdout is a terminal."""
        return sys.stdout.isatty()

    def fileno(self) -> int:
        """Returns the descriptor of stdout."""
        return sys.stdout.fileno()


@contextlib.contextmanager
def _until_closed(out: TextIO) -> Generator[None, None, None]:
    try:
        yield
    except BrokenPipeError:
        _discard_output(out)
    except ValueError:
        pass  # a program that embeds the command has closed the stream


def _discard_output(out: TextIO) -> None:
    """Turns a stream into /dev/null, also for buffered data.

    Otherwise the interpreter would fail to flush the buffer at its exit, and print an error.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, out.fileno())
    os.close(null)


def _open_closed_streams() -> None:
    """Opens /dev/null for each closed standard stream: the next file would get its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # The kernel gives the lowest free number: the number of the closed stream.
            null = Path(os.devnull).open("w" if number else "r")  # noqa: SIM115 - stays open
            setattr(sys, name, null)


def _terminal_width() -> int:
    """Returns the columns of the terminal at stdout; 0 without a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0


def coloured(text: str, colour: str) -> str:
    """Returns text in a colour; an empty `colour` leaves the text plain."""
    return f"{colour}{text}{_PLAIN}" if colour else text


def wrapped(text: str, width: int) -> list[str]:
    """Returns lines of at most `width` characters; no word is broken.

    Words such as paths and commands are copied from the terminal. For a very small width the text
    stays one line.
    """
    if width < _MIN_WIDTH:
        return [text]
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def remark(text: str, margin: str, width: int) -> list[str]:
    """Returns the lines of a remark below a row of a table, with an arrow before the first.

    Args:
        text: the remark, in one line.
        margin: begins each line.
        width: most characters of a line; 0 for no limit.
    """
    first, *rest = wrapped(text, width - len(margin) - 2)
    return [f"{margin}→ {first}", *(f"{margin}  {line}" for line in rest)]


def filled(text: str) -> str:
    """Returns paragraphs as wide as the terminal, with the margin of argparse."""
    width = max(shutil.get_terminal_size().columns - 2, 20)
    return "\n\n".join(
        textwrap.fill(" ".join(words.split()), width, break_on_hyphens=False)
        for words in text.split("\n\n")
    )
