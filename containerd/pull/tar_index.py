"""Index of the files in a tar. A job supplies the tar, so that reading is strict and bounded.

No file is unpacked to a path. The whole archive is refused for an absolute name, for a name with
`..`, and for a device, a FIFO or a sparse file. A link may lead to another member only.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import BinaryIO

from proto.errors import Code, DriverError
from proto.values import dataclass

_BLOCK = 512
_MAX_MEMBERS = 65536
# Directories and extra headers are no members, and cost time too.
_MAX_HEADERS = 4 * _MAX_MEMBERS
_MAX_EXTRA_HEADERS = 8
_LENGTH_DIGITS = 6
_MAX_EXTRA_BYTES = 64 * 1024
# Memory holds all names, and a few KiB of gzip unpack to gigabytes of names.
_MAX_NAMES_CHARACTERS = 16 * 1024 * 1024
MAX_ARCHIVE_BYTES = 64 * 1024**3
_REGULAR = frozenset({b"0", b"\0", b"7"})
_HARD_LINK, _LINK, _DIRECTORY = b"1", b"2", b"5"
_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK = b"x", b"g", b"L", b"K"
_EXTRA = frozenset({_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK})
# The keys of an extra header that are read; other keys are dropped.
_KEPT_KEYS = frozenset({b"path", b"linkpath", b"size"})
_SPARSE = "GNU.sparse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A file of the tar by offset and size in bytes; or a link, the name of another member."""

    offset: int
    size: int
    link: str = ""


class TarIndex:
    """The regular members of a tar by name.

    Args:
        file: the uncompressed tar, at its start.
        tick: called for every header; may raise to end the reading.

    Raises:
        DriverError: code CORRUPT; no tar, or a tar that no image tool writes.
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
                raise refused(f"the archive has over {_MAX_MEMBERS} members")
            if extra_headers > _MAX_EXTRA_HEADERS:
                raise refused(f"a member has over {_MAX_EXTRA_HEADERS} headers")
            extra = self._add(header, extra)

    def find(self, name: str) -> Member | None:
        """Returns a member, through at most one link; None if the name is missing.

        Raises:
            DriverError: code CORRUPT; the link leads to no file.
        """
        member = self._members.get(posixpath.normpath(name))
        if member is not None and member.link:
            member = self._members.get(member.link)
            if member is None or member.link:
                raise refused(f"the link {name[:128]!r} leads to no file of the archive")
        return member

    def _header(self) -> bytes | None:
        block = self._file.read(_BLOCK)
        self._position += len(block)
        # Two blocks of zeros end a tar; some tools omit the blocks.
        if not block or not block.strip(b"\0"):
            return None
        blank = sum(block[:148]) + 8 * 0x20 + sum(block[156:])
        if len(block) < _BLOCK or _number(block[148:156]) != blank:
            raise refused("no tar, or a damaged tar")
        return block

    def _add(self, header: bytes, extra: dict[str, str]) -> dict[str, str]:
        """Adds the member of a header, and returns the fields for the next header.

        Args:
            header: 512 bytes.
            extra: fields of the extra headers before, by their PAX keys.
        """
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
            raise refused(f"{name[:128]!r} is no regular file")
        self._keep(name, Member(offset=self._position, size=size))
        self._skip(size)
        return {}

    def _link(self, name: str, target: str, *, hard: bool) -> None:
        whole = target if hard else posixpath.join(posixpath.dirname(name), target)
        clean = posixpath.normpath(whole)
        if clean.startswith(("/", "../")) or clean in {"..", "."}:
            raise refused(f"the link {name[:128]!r} leads out of the archive")
        self._keep(name, Member(offset=0, size=0, link=clean))

    def _keep(self, name: str, member: Member) -> None:
        self._names_characters += len(name) + len(member.link)
        if self._names_characters > _MAX_NAMES_CHARACTERS:
            raise refused(f"all names together are longer than {_MAX_NAMES_CHARACTERS >> 20} MiB")
        self._members[name] = member

    def _body(self, size: int) -> bytes:
        if size > _MAX_EXTRA_BYTES:
            raise refused("a header is larger than the headers of all known tools")
        body = self._file.read(size)
        if len(body) != size:
            raise refused("the archive is cut off")
        self._position += size
        self._skip(0)
        return body

    def _skip(self, size: int) -> None:
        """Seeks to the next header: bodies are padded to whole blocks."""
        end = self._position + size
        end += -end % _BLOCK
        if end > MAX_ARCHIVE_BYTES:
            raise refused(f"the archive is larger than {MAX_ARCHIVE_BYTES >> 30} GiB")
        self._position = end
        self._file.seek(end)


def check_total(size: int) -> None:
    """Refuses an image with layers that are together larger than an archive may be.

    Raises:
        DriverError: code CORRUPT.
    """
    if size > MAX_ARCHIVE_BYTES:
        raise refused(f"all layers together are larger than {MAX_ARCHIVE_BYTES >> 30} GiB")


def refused(reason: str) -> DriverError:
    """Returns the error of an archive that cannot be used."""
    return DriverError(
        "the image archive is refused",
        details=reason,
        resolution="write the archive with docker save, podman save, skopeo or buildah",
        code=Code.CORRUPT,
    )


def _checked(name: str) -> str:
    clean = posixpath.normpath(name)
    if not name or clean.startswith("/") or ".." in clean.split("/") or ".." in name.split("/"):
        raise refused(f"the name {name[:128]!r} leads out of the archive")
    return clean


def _number(field: bytes) -> int:
    """Returns a number in octal digits, or in GNU's binary form for larger numbers."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    try:
        value = int(digits, 8) if digits else 0
    except ValueError:
        value = -1
    if value < 0:
        raise refused("no tar, or a damaged tar")
    return value


def _decimal(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 20:  # noqa: PLR2004 - 64 bits
        raise refused("a size is no number")
    return int(text)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="surrogateescape")


def _pax(body: bytes) -> dict[str, str]:
    """Returns the kept keys of a PAX body: length, blank, `KEY=VALUE`, newline in each record."""
    fields: dict[str, str] = {}
    start = 0
    while start < len(body):
        space = body.find(b" ", start, start + _LENGTH_DIGITS + 1)
        digits = body[start:space] if space > start else b""
        end = start + int(digits) if digits.isdigit() else 0
        if not space < end <= len(body) or body[end - 1 : end] != b"\n":
            raise refused("a header cannot be read")
        key, equals, value = body[space + 1 : end - 1].partition(b"=")
        if not equals:
            raise refused("a header cannot be read")
        if key in _KEPT_KEYS:
            fields[key.decode()] = value.decode(errors="surrogateescape")
        elif key.startswith(_SPARSE.encode()):
            fields[_SPARSE] = ""
        start = end
    return fields
