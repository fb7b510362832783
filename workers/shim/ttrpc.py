"""ttrpc to a containerd shim, as bytes: frames, the two envelopes, and the messages in use.

Pure encoding and decoding. A frame is ten bytes (length of the data, stream id, type, flags, all
big-endian) and the data, a protobuf message. The messages are so small that writing them by hand
costs less than importing protobuf: 6 MB in every launcher.
"""

from __future__ import annotations

import struct

from proto.errors import Code, DriverError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DATA_BYTES = 4 << 20
STATUSES = ("unknown", "created", "running", "stopped", "paused", "pausing")
"""containerd's task states by their numbers on the wire."""

_HEADER = struct.Struct(">IIBB")
_REQUEST, _RESPONSE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_CODES = {  # google.rpc.Code
    1: Code.CANCELLED,
    3: Code.INVALID,
    4: Code.TIMEOUT,
    5: Code.NOT_FOUND,
    6: Code.ALREADY_EXISTS,
    7: Code.DENIED,
    8: Code.EXHAUSTED,
    9: Code.PRECONDITION,
    12: Code.UNSUPPORTED,
    14: Code.UNAVAILABLE,
    15: Code.CORRUPT,
}

Fields = dict[int, int | bytes]


def frame(stream: int, data: bytes) -> bytes:
    """The frame that opens a unary call. Streams of a client are odd and count up."""
    return _HEADER.pack(len(data), stream, _REQUEST, 0) + data


def request(service: str, method: str, payload: bytes, namespace: str, timeout_ns: int) -> bytes:
    """The envelope of a call; timeout_ns 0 means none."""
    pair = message({1: "containerd-namespace-ttrpc", 2: namespace})
    return message({1: service, 2: method, 3: payload, 4: timeout_ns, 5: pair})


def response(data: bytes) -> tuple[bytes, DriverError | None]:
    """The payload in a response's envelope, or the failure that it tells."""
    fields = parse(data)
    status = parse(octets(fields, 1))
    code = number(status, 1)
    if code == 0:
        return octets(fields, 2), None
    said = octets(status, 2).decode(errors="replace")
    error = DriverError("the shim refuses", details=said, code=_CODES.get(code, Code.INTERNAL))
    return b"", error


class Decoder:
    """Collects bytes as they come and gives (stream id, data) of the responses that are whole."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The responses completed by `data`. DriverError(CORRUPT) where it is no ttrpc."""
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            length, stream, kind, _ = _HEADER.unpack_from(self._buffer)
            if length > MAX_DATA_BYTES:
                raise _corrupt(f"a frame of {length} bytes")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            if kind == _RESPONSE:  # data frames belong to streams, which we never open
                yield stream, body


def message(fields: dict[int, int | str | bytes]) -> bytes:
    """A protobuf message of varints, strings, bytes; zero and empty are left out, as in proto3."""
    out = bytearray()
    for tag, value in fields.items():
        if not value:
            continue
        if isinstance(value, int):
            out += _varint(tag << 3 | _VARINT) + _varint(value)
        else:
            body = value.encode() if isinstance(value, str) else value
            out += _varint(tag << 3 | _BYTES) + _varint(len(body)) + body
    return bytes(out)


def parse(data: bytes) -> Fields:
    """Field number to value; of a repeated field the last. DriverError(CORRUPT) if it is none."""
    fields: Fields = {}
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        kind = key & 7
        if kind == _VARINT:
            fields[key >> 3], at = _read_varint(data, at)
            continue
        if kind == _BYTES:
            size, at = _read_varint(data, at)
        elif kind in _FIXED_SIZES:
            size = _FIXED_SIZES[kind]
        else:
            raise _corrupt(f"wire type {kind}")
        if at + size > len(data):
            raise _corrupt("a message cut short")
        fields[key >> 3] = data[at : at + size]
        at += size
    return fields


def number(fields: Fields, tag: int) -> int:
    """A varint field, 0 where it is absent or of another kind."""
    value = fields.get(tag, 0)
    return value if isinstance(value, int) else 0


def octets(fields: Fields, tag: int) -> bytes:
    """A length-delimited field, empty where it is absent or of another kind."""
    value = fields.get(tag, b"")
    return value if isinstance(value, bytes) else b""


def wait_request(container_id: str) -> bytes:
    """Of the container's first process, as are the others here."""
    return message({1: container_id})


def wait_answer(payload: bytes) -> tuple[int, int]:
    """Exit status, 128 + n after signal n, and the time in ns since the epoch, 0 if not told."""
    fields = parse(payload)
    moment = parse(octets(fields, 2))
    return number(fields, 1), number(moment, 1) * 1_000_000_000 + number(moment, 2)


def state_request(container_id: str) -> bytes:
    """Asks for pid and status."""
    return message({1: container_id})


def state_answer(payload: bytes) -> tuple[int, str]:
    """The pid on the host and one of STATUSES."""
    fields = parse(payload)
    status = number(fields, 4)
    return number(fields, 3), STATUSES[status] if status < len(STATUSES) else STATUSES[0]


def kill_request(container_id: str, signal: int, *, everyone: bool) -> bytes:
    """Signals the first process, or every process of the container."""
    return message({1: container_id, 3: signal, 4: int(everyone)})


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise _corrupt("a number cut short")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise _corrupt("a number of more than ten bytes")


def _corrupt(what: str) -> DriverError:
    return DriverError("the shim sent something that is not ttrpc", details=what, code=Code.CORRUPT)
