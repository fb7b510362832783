"""What lies where in a tar: read strictly and with bounds, because a job made the file.

Nothing is ever unpacked to a path. A name that is absolute or has `..`, a device, a FIFO or a
sparse file makes the whole archive refused; a link leads to another member or nowhere.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from proto.errors import Code, DriverError

_BLOCK = 512
_MAX_MEMBERS = 65536
# Directories, and headers that complete the next one, are no members and cost time all the same.
_MAX_HEADERS = 4 * _MAX_MEMBERS
_MAX_EXTRA_HEADERS = 8
_LENGTH_DIGITS = 6
_MAX_EXTRA_BYTES = 64 * 1024
# All names are held in memory, and a few KiB of gzip unpack to gigabytes of them.
_MAX_NAMES_CHARACTERS = 16 * 1024 * 1024
MAX_ARCHIVE_BYTES = 64 * 1024**3
_REGULAR = frozenset({b"0", b"\0", b"7"})
_HARD_LINK, _LINK, _DIRECTORY = b"1", b"2", b"5"
_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK = b"x", b"g", b"L", b"K"
_EXTRA = frozenset({_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK})
# Nothing else of a header is read, so nothing else is kept.
_KEPT_KEYS = frozenset({b"path", b"linkpath", b"size"})
_SPARSE = "GNU.sparse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A file, or with `link` the name of the member that it stands for. In bytes of the tar."""

    offset: int
    size: int
    link: str = ""


class TarIndex:
    """The regular members of a tar by name.

    Args:
        file: the uncompressed tar, at its start.
        tick: called for every member; it may raise.

    Raises:
        DriverError: code CORRUPT; the file is no tar, or one that no image tool writes.
    """

    def __init__(self, file: BinaryIO, tick: Callable[[], None]) -> None:
        self._file = file
        self._members: dict[str, Member] = {}
        self._position = 0
        self._names_characters = 0
        extra: dict[str, str] = {}
        headers = extra_headers = 0
        while (header := self._header()) is not None:
            tick()
            headers += 1
            extra_headers = extra_headers + 1 if header[156:157] in _EXTRA else 0
            if len(self._members) >= _MAX_MEMBERS or headers > _MAX_HEADERS:
                raise refused(f"it has over {_MAX_MEMBERS} members")
            if extra_headers > _MAX_EXTRA_HEADERS:
                raise refused(f"a member in it has over {_MAX_EXTRA_HEADERS} headers")
            extra = self._take(header, extra)

    def find(self, name: str) -> Member | None:
        """A member, through one link; None where there is none."""
        member = self._members.get(posixpath.normpath(name))
        if member is not None and member.link:
            member = self._members.get(member.link)
            if member is None or member.link:
                raise refused(f"the link {name[:128]!r} leads to no file in it")
        return member

    def _header(self) -> bytes | None:
        block = self._file.read(_BLOCK)
        self._position += len(block)
        # Two blocks of zeros end a tar; some tools leave them out.
        if not block or not block.strip(b"\0"):
            return None
        blank = sum(block[:148]) + 8 * 0x20 + sum(block[156:])
        if len(block) < _BLOCK or _number(block[148:156]) != blank:
            raise refused("it is no tar, or a damaged one")
        return block

    def _take(self, header: bytes, extra: dict[str, str]) -> dict[str, str]:
        """One member; returns what the next one's header is to be completed with."""
        kind = header[156:157]
        size = _number(header[124:136])
        if kind in _EXTRA:
            body = self._body(size)
            if kind == _PAX_GLOBAL:
                return extra
            if kind == _PAX:
                return {**extra, **_pax(body)}
            return {**extra, "path" if kind == _LONG_NAME else "linkpath": _text(body)}
        if "size" in extra:
            size = _decimal(extra["size"])
        prefix = _text(header[345:500]) if header[257:262] == b"ustar" else ""
        short = posixpath.join(prefix, _text(header[:100])) if prefix else _text(header[:100])
        name = _checked(extra.get("path") or short)
        if kind in {_HARD_LINK, _LINK}:
            self._link(name, extra.get("linkpath") or _text(header[157:257]), hard=kind == b"1")
            return {}
        if kind == _DIRECTORY:
            return {}
        if kind not in _REGULAR or _SPARSE in extra:
            raise refused(f"{name[:128]!r} is no plain file")
        self._keep(name, Member(offset=self._position, size=size))
        self._skip(size)
        return {}

    def _link(self, name: str, target: str, *, hard: bool) -> None:
        whole = target if hard else posixpath.join(posixpath.dirname(name), target)
        clean = posixpath.normpath(whole)
        if clean.startswith(("/", "../")) or clean in {"..", "."}:
            raise refused(f"the link {name[:128]!r} leads out of it")
        self._keep(name, Member(offset=0, size=0, link=clean))

    def _keep(self, name: str, member: Member) -> None:
        self._names_characters += len(name) + len(member.link)
        if self._names_characters > _MAX_NAMES_CHARACTERS:
            raise refused(f"its names are longer than {_MAX_NAMES_CHARACTERS >> 20} MiB together")
        self._members[name] = member

    def _body(self, size: int) -> bytes:
        if size > _MAX_EXTRA_BYTES:
            raise refused("a header is larger than any tool writes it")
        body = self._file.read(size)
        if len(body) != size:
            raise refused("it ends in the middle")
        self._position += size
        self._skip(0)
        return body

    def _skip(self, size: int) -> None:
        """To the next header: bodies are padded to whole blocks."""
        end = self._position + size
        end += -end % _BLOCK
        if end > MAX_ARCHIVE_BYTES:
            raise refused(f"it is larger than {MAX_ARCHIVE_BYTES >> 30} GiB")
        self._position = end
        self._file.seek(end)


def check_total(size: int) -> None:
    """Refuses an image whose layers are larger than an archive may be.

    Raises:
        DriverError: code CORRUPT.
    """
    if size > MAX_ARCHIVE_BYTES:
        raise refused(f"its layers are larger than {MAX_ARCHIVE_BYTES >> 30} GiB together")


def refused(why: str) -> DriverError:
    """An archive that cannot be used."""
    return DriverError(
        "the image archive is refused",
        details=why,
        resolution="write it with docker save, podman save, skopeo or buildah",
        code=Code.CORRUPT,
    )


def _checked(name: str) -> str:
    clean = posixpath.normpath(name)
    if not name or clean.startswith("/") or ".." in clean.split("/") or ".." in name.split("/"):
        raise refused(f"the name {name[:128]!r} leads out of it")
    return clean


def _number(field: bytes) -> int:
    """Octal digits, or GNU's binary form for what they cannot hold."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    try:
        value = int(digits, 8) if digits else 0
    except ValueError:
        value = -1
    if value < 0:
        raise refused("it is no tar, or a damaged one")
    return value


def _decimal(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 20:  # noqa: PLR2004 - 64 bits
        raise refused("a size in it is no number")
    return int(text)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="surrogateescape")


def _pax(body: bytes) -> dict[str, str]:
    """Records: a length, a blank, `KEY=VALUE` and a newline. Returns what is read of them."""
    found: dict[str, str] = {}
    start = 0
    while start < len(body):
        space = body.find(b" ", start, start + _LENGTH_DIGITS + 1)
        digits = body[start:space] if space > start else b""
        end = start + int(digits) if digits.isdigit() else 0
        if not space < end <= len(body) or body[end - 1 : end] != b"\n":
            raise refused("a header in it cannot be read")
        key, equals, value = body[space + 1 : end - 1].partition(b"=")
        if not equals:
            raise refused("a header in it cannot be read")
        if key in _KEPT_KEYS:
            found[key.decode()] = value.decode(errors="surrogateescape")
        elif key.startswith(_SPARSE.encode()):
            found[_SPARSE] = ""
        start = end
    return found
