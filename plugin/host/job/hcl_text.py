"""HCL source in a form that every release of python-hcl2 reads alike.

Releases 4 to 8 differ in what they make of escapes and heredocs; some lose a heredoc's last line
end or turn the backslashes in it into control characters. So the parser gets to see neither: a
heredoc becomes a string, and each character that would need an escape becomes one of a private
plane of Unicode, which `restore` turns back afterwards. Line numbers stay as they are.
"""

from __future__ import annotations

import re
import sys

from plugin.host.job.text import MAX_DEPTH

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


def guard(text: str) -> str:
    """The same source without comments, heredocs and escapes.

    Raises:
        ValueError: a string or heredoc has no end, an escape is none, a name is given twice in one
            block, or blocks are nested too deeply; says the line.
    """
    if any(_PLANE <= ord(character) < _PLANE + _MASKED for character in text):
        raise ValueError("it has a character of the private plane U+10FF00 to U+10FF7F")
    return _Scanner(text).run()


def restore(text: str) -> str:
    """A string that came through the parser, with its own characters again."""
    return text.translate(_BACK)


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._out: list[str] = []
        # The names that each open bracket has been given; the file's own come first.
        self._names: list[set[str]] = [set()]

    def run(self) -> str:
        while self._at < len(self._text):
            self._look()
            comment = _COMMENT.match(self._text, self._at)
            heredoc = _HEREDOC.match(self._text, self._at)
            if comment:
                self._at = comment.end()
                self._out.append("\n" * comment[0].count("\n") or " ")
            elif heredoc:
                self._heredoc(heredoc)
            elif self._text[self._at] == '"':
                self._string()
            else:
                self._copy(1)
        return "".join(self._out)

    def _look(self) -> None:
        """Notes a bracket, or an attribute at the beginning of a line."""
        here = self._text[self._at]
        if here in "{[(":
            self._names.append(set())
            if len(self._names) > MAX_DEPTH:
                raise ValueError(
                    f"line {self._line(self._at)}: it is nested deeper than {MAX_DEPTH} levels"
                )
        elif here in "}])" and len(self._names) > 1:
            self._names.pop()
        elif self._at == 0 or self._text[self._at - 1] in "\n{":
            given = _ATTRIBUTE.match(self._text, self._at)
            if given and given[1] in self._names[-1]:
                raise ValueError(f"line {self._line(self._at)}: {given[1]} is given twice")
            if given:
                self._names[-1].add(given[1])

    def _copy(self, count: int) -> None:
        self._out.append(self._text[self._at : self._at + count])
        self._at += count

    def _string(self) -> None:
        """From one quote to the other."""
        begun = self._at
        self._copy(1)
        while True:
            here = self._text[self._at : self._at + 1]
            if here in {"", "\n"}:
                raise ValueError(f"line {self._line(begun)}: the string has no closing quote")
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
                raise ValueError(f"line {self._line(self._at)}: \\{unicode[0]} is no character")
            self._out.append(_mask(chr(code)))
            self._at = unicode.end()
        elif letter in _ESCAPES:
            self._out.append(_mask(_ESCAPES[letter]))
            self._at += 2
        else:
            raise ValueError(
                f"line {self._line(self._at)}: \\{letter} is no escape of HCL;"
                " a backslash itself is written \\\\"
            )

    def _template(self) -> bool:
        """Copies `${…}` whole, quotes in it and all; False where none begins."""
        if self._text.startswith(_DOUBLED, self._at):
            self._copy(3)
            return True
        if not self._text.startswith(_OPENED, self._at):
            return False
        begun, depth = self._at, 1
        self._copy(2)
        while depth:
            here = self._text[self._at : self._at + 1]
            if not here:
                raise ValueError(f"line {self._line(begun)}: ${{ has no closing brace")
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
            raise ValueError(f"line {line}: the heredoc has no line with {opening[2]} alone")
        body = self._text[opening.end() : end.start()]
        inner = _Scanner(_dedented(body) if opening[1] else body)
        while inner._at < len(inner._text):
            if not inner._template():
                inner._out.append(_mask(inner._text[inner._at]))
                inner._at += 1
        self._out += ['"', *inner._out, '"', "\n" * (body.count("\n") + 1)]
        self._at = end.end()

    def _line(self, position: int) -> int:
        return self._text.count("\n", 0, position) + 1


def _mask(character: str) -> str:
    plain = character.isalnum() or character == " " or ord(character) >= _MASKED
    return character if plain else chr(_PLANE + ord(character))


def _dedented(body: str) -> str:
    lines = body.split("\n")
    margin = min((len(s) - len(s.lstrip(" \t")) for s in lines if s.strip()), default=0)
    return "\n".join(line[margin:] for line in lines)
