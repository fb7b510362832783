"""Parser of a command's arguments: argparse, with a suggestion for an unknown option."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from plugin.cli import console
from plugin.texts import did_you_mean, one_line


class Parser(argparse.ArgumentParser):
    """The options of a command, without abbreviations; its help is as wide as the terminal.

    Args:
        command: name of the command.
        description: one sentence about the command.
        epilog: paragraphs below the options.
    """

    def __init__(self, command: str, description: str, epilog: str) -> None:
        super().__init__(
            prog=f"containerd-driver {command}",
            description=console.filled(description),
            epilog=console.filled(epilog),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def print_help(self, file: object = None) -> None:
        """Writes the help to stdout; a reader may leave early."""
        del file  # argparse passes no file for --help
        console.show(self.format_help())

    def parse_args(self, args: Sequence[str], namespace: Any = None) -> Any:  # type: ignore[override]
        """Parses the arguments; ends the process with status 2 for a wrong argument."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error("; ".join(map(self._unknown, unknown)))
        return parsed

    def error(self, message: str) -> NoReturn:
        """Ends the process with status 2; prints the message as plain text."""
        super().error(one_line(message))

    def _unknown(self, word: str) -> str:
        name = word.partition("=")[0]
        if not name.startswith("-"):
            return f'unexpected argument "{word}"'
        return f"{name}: no such option{did_you_mean(name, self._option_string_actions)}"
