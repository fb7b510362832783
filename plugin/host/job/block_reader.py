"""Reading blocks of a job file: values checked, and every problem collected with its place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from plugin.host.job.hcl_job import merged, shown
from plugin.host.job.keys import Keys
from plugin.host.job.text import Block
from plugin.options.readers import parse_duration_s

_MAX_LABEL_BYTES = 128


class BlockReader:
    """Collects what is wrong, and which keys are left to Nomad, over a whole file."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.ignored: set[str] = set()

    def sift(self, keys: Keys, where: str, block: Block) -> None:
        """Looks at the keys of a block."""
        keys.sift(where, block, self.problems, self.ignored)

    def labels(self, kind: str, labels: Sequence[str]) -> None:
        """Looks at the names of blocks of one kind, which become names of files and variables."""
        for label in dict.fromkeys(labels):
            where = f'{kind} "{label}"'
            if labels.count(label) > 1:
                self.problems.append(f"{where}: stands more than once")
            if len(label.encode(errors="replace")) > _MAX_LABEL_BYTES:
                self.problems.append(f"{where[:64]}…: its name has over {_MAX_LABEL_BYTES} bytes")
            if not label.isprintable():
                self.problems.append(f"{where}: its name has a character that cannot be printed")

    def block(self, where: str, block: Block, key: str, *, once: bool = False) -> Block:
        """The body of a block without a label; of several that may stand there, all together."""
        blocks = block.get(key)
        items = blocks if isinstance(blocks, list) else [] if blocks is None else [blocks]
        if not all(isinstance(item, dict) for item in items):
            self.problems.append(f"{where}: {key} is a block, write {key} {{ … }}")
        if once and len(items) > 1:
            self.problems.append(f"{where}: {key} stands more than once")
        return merged(blocks)

    def number(
        self, where: str, block: Block, key: str, default: int, span: tuple[int, int]
    ) -> int:
        """A whole number of that span."""
        value = block.get(key, default)
        try:
            number = int(str(value)) if not isinstance(value, bool) else span[0] - 1
        except ValueError:
            number = span[0] - 1
        if not span[0] <= number <= span[1]:
            self.problems.append(f"{where}: {key} {value!r} is not a number of {span[0]} or more")
        return number

    def duration(self, where: str, block: Block, key: str, default: float) -> float:
        """Seconds of a duration such as "10s"."""
        if key not in block:
            return default
        try:
            return parse_duration_s(str(block[key]))
        except ValueError as error:
            self.problems.append(f"{where}: {key}: {error}")
            return default

    def flag(self, where: str, block: Block, key: str) -> bool:
        """True or false; false where it is not given."""
        value = block.get(key)
        word = str(value).lower()
        if word not in {"true", "false", "none"}:
            self.problems.append(f"{where}: {key} {value!r} is neither true nor false")
        return word == "true"

    def words(self, where: str, block: Block, key: str) -> tuple[str, ...]:
        """A list of strings."""
        value = block.get(key) or []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.problems.append(f"{where}: {key} is not a list of strings")
            return ()
        return tuple(value)


def labelled(blocks: Any) -> Iterable[tuple[str, Block]]:
    """(label, body) of blocks such as `task "web" {}`."""
    for block in blocks if isinstance(blocks, list) else []:
        for label, body in block.items() if isinstance(block, dict) else ():
            if isinstance(body, dict):
                yield str(label), body


def texts(block: Any) -> dict[str, str]:
    """A map of strings, given as a block or as an attribute; null leaves a key out."""
    return {key: shown(value) for key, value in merged(block).items() if value is not None}
