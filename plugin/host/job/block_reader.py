"""Reader of blocks of a job file: checks values, and collects every problem with its place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from plugin.host.job.hcl_job import as_text, merged
from plugin.host.job.keys import Keys
from plugin.host.job.text import Block
from plugin.options.readers import parse_duration_s

_MAX_LABEL_BYTES = 128


class BlockReader:
    """Reads the blocks of one file.

    A block is the mapping of its keys to values, as `parse_hcl` returns it. In all methods `where`
    is the place of the block in problems, for example `task "web"`, and `key` is a key of the
    block. A wrong value is appended to `problems` as a sentence; a method then returns a harmless
    value, and the caller goes on.

    Attributes:
        problems: a sentence for each problem of the file.
        ignored: keys that only a Nomad agent obeys.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.ignored: set[str] = set()

    def sift(self, keys: Keys, where: str, block: Block) -> None:
        """Checks the keys of a block: reports unknown and refused keys, notes ignored keys."""
        keys.sift(where, block, self.problems, self.ignored)

    def labels(self, kind: str, labels: Sequence[str]) -> None:
        """Checks the labels of blocks of one kind: labels become names of files and variables."""
        for label in dict.fromkeys(labels):
            where = f'{kind} "{label}"'
            if labels.count(label) > 1:
                self.problems.append(f"{where}: appears more than once")
            if len(label.encode(errors="replace")) > _MAX_LABEL_BYTES:
                self.problems.append(f"{where[:64]}…: the name has over {_MAX_LABEL_BYTES} bytes")
            if not label.isprintable():
                self.problems.append(f"{where}: the name has an unprintable character")

    def block(self, where: str, block: Block, key: str, *, once: bool = False) -> Block:
        """Returns the body of an inner block without a label; several blocks are merged.

        Args:
            where: place of the outer block.
            block: the outer block.
            key: name of the inner block.
            once: True reports a second block.
        """
        blocks = block.get(key)
        items = blocks if isinstance(blocks, list) else [] if blocks is None else [blocks]
        if not all(isinstance(item, dict) for item in items):
            self.problems.append(f"{where}: {key} is a block, write {key} {{ … }}")
        if once and len(items) > 1:
            self.problems.append(f"{where}: {key} appears more than once")
        return merged(blocks)

    def number(
        self, where: str, block: Block, key: str, default: int, span: tuple[int, int]
    ) -> int:
        """Returns a whole number; reports a value outside of `span`.

        Args:
            where: place of the block.
            block: the block.
            key: key of the number.
            default: result for an absent key.
            span: least and greatest allowed number.
        """
        value = block.get(key, default)
        try:
            number = int(str(value)) if not isinstance(value, bool) else span[0] - 1
        except ValueError:
            number = span[0] - 1
        if not span[0] <= number <= span[1]:
            least, greatest = span
            self.problems.append(
                f"{where}: {key} {value!r} is not a whole number from {least} to {greatest}"
            )
        return number

    def duration(self, where: str, block: Block, key: str, default: float) -> float:
        """Returns the seconds of a Go duration such as "10s"; reports another value.

        Args:
            where: place of the block.
            block: the block.
            key: key of the duration.
            default: seconds for an absent or wrong value.
        """
        if key not in block:
            return default
        try:
            return parse_duration_s(str(block[key]))
        except ValueError as error:
            self.problems.append(f"{where}: {key}: {error}")
            return default

    def flag(self, where: str, block: Block, key: str) -> bool:
        """Returns True or False; False for an absent key."""
        value = block.get(key)
        word = str(value).lower()
        if word not in {"true", "false", "none"}:
            self.problems.append(f"{where}: {key} {value!r} is neither true nor false")
        return word == "true"

    def words(self, where: str, block: Block, key: str) -> tuple[str, ...]:
        """Returns a list of strings; empty for an absent key."""
        value = block.get(key) or []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.problems.append(f"{where}: {key} is not a list of strings")
            return ()
        return tuple(value)


def labelled(blocks: Any) -> Iterable[tuple[str, Block]]:
    """Yields (label, body) of blocks such as `task "web" {}`."""
    for block in blocks if isinstance(blocks, list) else []:
        for label, body in block.items() if isinstance(block, dict) else ():
            if isinstance(body, dict):
                yield str(label), body


def string_map(block: Any) -> dict[str, str]:
    """Returns a map of strings from a block or an attribute; a null drops its key."""
    return {key: as_text(value) for key, value in merged(block).items() if value is not None}
