"""Arguments of the commands: as argparse reads them, with the near name for one that is unknown."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from plugin.cli import console
from plugin.texts import did_you_mean, one_line


class Parser(argparse.ArgumentParser):
    """The options of one command, to be given in full; its texts are as wide as the terminal.

    Args:
        command: its name.
        description: what it does.
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
        """Prints it to stdout; whoever has seen enough may leave."""
        del file  # argparse names none for --help
        console.show(self.format_help())

    def parse_args(self, args: Sequence[str], namespace: Any = None) -> Any:  # type: ignore[override]
        """Ends the process with status 2 where one is wrong."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error("; ".join(map(self._unknown, unknown)))
        return found

    def error(self, message: str) -> NoReturn:
        """Ends the process with status 2; a word of the command line may be anybody's."""
        super().error(one_line(message))

    def _unknown(self, word: str) -> str:
        name = word.partition("=")[0]
        if not name.startswith("-"):
            return f'"{word}" is one argument too many'
        return f"{name}: no such option{did_you_mean(name, self._option_string_actions)}"
