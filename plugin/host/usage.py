"""Arguments of the commands: as argparse reads them, with the near name for one that is unknown."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from plugin import near


class Parser(argparse.ArgumentParser):
    """Options in full, a description as it was written."""

    def __init__(self, **more: Any) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(formatter_class=formatter, allow_abbrev=False, **more)

    def parse_args(self, args: Sequence[str], namespace: Any = None) -> Any:  # type: ignore[override]
        """Ends the process with status 2 where one is wrong."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error("; ".join(map(self._unknown, unknown)))
        return found

    def _unknown(self, word: str) -> str:
        name = word.partition("=")[0]
        if not name.startswith("-"):
            return f'"{word}" is one argument too many'
        return f"{name}: no such option{near.hint(name, self._option_string_actions)}"
