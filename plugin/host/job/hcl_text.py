"""HCL source without escapes, heredocs and comments, for python-hcl2.

python-hcl2 8.1 does not decode strings: an escape stays two characters, a heredoc keeps its
markers. After parsing, an escaped `${` and a template would look the same. So `mask` decodes the
source before parsing: a heredoc becomes a string, and each decoded special character becomes a
character of a private plane of Unicode. `unmask` restores the characters after the evaluation of
templates. Line numbers do not change.

python-hcl2 also keeps the last of several equal attributes without an error, and a message about an
unclosed string shows tokens of the grammar. `mask` reports both with the line.
"""

from __future__ import annotations

import bisect
import re
import sys
from dataclasses import field

from plugin.host.job.text import MAX_DEPTH
from proto.values import dataclass

_PLANE = 0x10FF00
_MASKED = 0x80
_BACK = {_PLANE + code: code for code in range(_MASKED)}
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
_UNICODE = re.compile(r"u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})")
_HEREDOC = re.compile(r"<<(-?)([^\W\d][\w-]*)[ \t]*\r?\n")
_COMMENT = re.compile(r"(?:#|//)[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_ATTRIBUTE = re.compile(r"[ \t]*([^\W\d][\w-]*)[ \t]*=(?![=>~])")
_HALVES = range(0xD800, 0xE000)
_DOUBLED = ("$${", "%%{")
_OPENED = ("${", "%{")


@dataclass(frozen=True, slots=True)
class Masked:
    """Source without comments, heredocs and escapes, with the places of its parts in the file.

    Attributes:
        text: the masked source.
        places: (index in `text`, index in the file) of each part, in ascending order.
    """

    text: str
    places: tuple[tuple[int, int], ...] = field(default=())

    def place(self, index: int) -> int:
        """Returns the index in the file of a character of `text`."""
        at = bisect.bisect_right(self.places, (index, sys.maxsize)) - 1
        masked, real = self.places[at] if at >= 0 else (0, 0)
        return real + index - masked


def mask(text: str) -> Masked:
    """Returns the source without comments, heredocs and escapes.

    Raises:
        ValueError: names the line of an unclosed string or heredoc, of an unknown escape, of an
            attribute that appears twice in a block, or of too many levels.
    """
    if any(_PLANE <= ord(character) < _PLANE + _MASKED for character in text):
        raise ValueError("a character of the private plane U+10FF00 to U+10FF7F is not allowed")
    return _Scanner(text).run()


def unmask(text: str) -> str:
    """Restores the special characters of a masked string."""
    return text.translate(_BACK)


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._out: list[str] = []
        self._length = 0
        self._places: list[tuple[int, int]] = []
        # Names of attributes in each open bracket; the first set has the names of the file.
        self._names: list[set[str]] = [set()]

    def run(self) -> Masked:
        while self._at < len(self._text):
            self._note_bracket_or_attribute()
            comment = _COMMENT.match(self._text, self._at)
            heredoc = _HEREDOC.match(self._text, self._at)
            if comment:
                self._put("\n" * comment[0].count("\n") or " ")
                self._at = comment.end()
            elif heredoc:
                self._heredoc(heredoc)
            elif self._text[self._at] == '"':
                self._string()
            else:
                self._copy(1)
        return Masked("".join(self._out), tuple(self._places))

    def _put(self, part: str) -> None:
        """Appends a part of the masked source, which stands at the present place of the file."""
        if not self._places or self._at != self._next_place():
            self._places.append((self._length, self._at))
        self._out.append(part)
        self._length += len(part)

    def _next_place(self) -> int:
        """Returns the place of the next part if the file goes on as the last part did."""
        masked, real = self._places[-1]
        return real + self._length - masked

    def _note_bracket_or_attribute(self) -> None:
        """Counts brackets, and remembers an attribute at the beginning of a line."""
        here = self._text[self._at]
        if here in "{[(":
            self._names.append(set())
            if len(self._names) > MAX_DEPTH:
                raise ValueError(
                    f"line {self._line(self._at)}: nested deeper than {MAX_DEPTH} levels"
                )
        elif here in "}])" and len(self._names) > 1:
            self._names.pop()
        elif self._at == 0 or self._text[self._at - 1] in "\n{":
            attribute = _ATTRIBUTE.match(self._text, self._at)
            if attribute and attribute[1] in self._names[-1]:
                raise ValueError(f"line {self._line(self._at)}: {attribute[1]} is set twice")
            if attribute:
                self._names[-1].add(attribute[1])

    def _copy(self, count: int) -> None:
        self._put(self._text[self._at : self._at + count])
        self._at += count

    def _string(self) -> None:
        """Copies a string with its quotes, and decodes its escapes."""
        start = self._at
        self._copy(1)
        while True:
            here = self._text[self._at : self._at + 1]
            if here in {"", "\n"}:
                raise ValueError(f"line {self._line(start)}: the string has no closing quote")
            if here == '"':
                self._copy(1)
                return
            if here == "\\":
                self._escape()
            elif not self._template():
                self._copy(1)

    def _escape(self) -> None:
        letter = self._text[self._at + 1 : self._at + 2]
        unicode = _UNICODE.match(self._text, self._at + 1)
        if unicode:
            code = int(unicode[1] or unicode[2], 16)
            if code > sys.maxunicode or code in _HALVES:
                raise ValueError(f"line {self._line(self._at)}: \\{unicode[0]} is not a character")
            self._put(_masked(chr(code)))
            self._at = unicode.end()
        elif letter in _ESCAPES:
            self._put(_masked(_ESCAPES[letter]))
            self._at += 2
        else:
            raise ValueError(
                f"line {self._line(self._at)}: \\{letter} is not an escape of HCL;"
                " write \\\\ for a backslash"
            )

    def _template(self) -> bool:
        """Copies a template `${…}` with all inner quotes; returns False without a template."""
        if self._text.startswith(_DOUBLED, self._at):
            self._copy(3)
            return True
        if not self._text.startswith(_OPENED, self._at):
            return False
        start, depth = self._at, 1
        self._copy(2)
        while depth:
            here = self._text[self._at : self._at + 1]
            if not here:
                raise ValueError(f"line {self._line(start)}: ${{ has no closing brace")
            if here == '"':
                self._string()
                continue
            depth += {"{": 1, "}": -1}.get(here, 0)
            self._copy(1)
        return True

    def _heredoc(self, opening: re.Match[str]) -> None:
        closing = re.compile(rf"^[ \t]*{re.escape(opening[2])}[ \t]*\r?$", re.MULTILINE)
        end = closing.search(self._text, opening.end())
        if end is None:
            line = self._line(self._at)
            raise ValueError(f"line {line}: the heredoc has no closing line {opening[2]}")
        body = self._text[opening.end() : end.start()]
        inner = _Scanner(_dedented(body) if opening[1] else body)
        while inner._at < len(inner._text):
            if not inner._template():
                inner._put(_masked(inner._text[inner._at]))
                inner._at += 1
        self._put("".join(['"', *inner._out]))
        # The closing quote stands for the last character of the closing line.
        self._at = end.end() - 1
        self._put('"')
        self._at = end.end()
        self._put("\n" * (body.count("\n") + 1))

    def _line(self, position: int) -> int:
        return self._text.count("\n", 0, position) + 1


def _masked(character: str) -> str:
    plain = character.isalnum() or character == " " or ord(character) >= _MASKED
    return character if plain else chr(_PLANE + ord(character))


def _dedented(body: str) -> str:
    lines = body.split("\n")
    margin = min((len(s) - len(s.lstrip(" \t")) for s in lines if s.strip()), default=0)
    return "\n".join(line[margin:] for line in lines)
