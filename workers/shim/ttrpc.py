"""Encoding of ttrpc, the protocol of containerd's shims: frames, two envelopes, and messages.

This module uses no socket. Source: PROTOCOL.md and request.proto of github.com/containerd/ttrpc,
and the Task service (api/runtime/task) of containerd.

- A frame is a header of ten bytes and the data. The header holds the length of the data (4 bytes),
  the stream id (4 bytes), the type and the flags (1 byte each), big-endian.
- The data of a request or a response is a protobuf message, the envelope, which holds the message
  of the call as bytes.

Encoding the few small messages here costs less than importing protobuf: 6 MB in every launcher.
"""

from __future__ import annotations

import struct

from proto.errors import Code, DriverError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DATA_BYTES = 4 << 20
STATUSES = ("unknown", "created", "running", "stopped", "paused", "pausing")
"""containerd's task states, by number in the message."""

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
    """Builds the frame that opens a unary call. Stream ids of a client are odd and increase."""
    return _HEADER.pack(len(data), stream, _REQUEST, 0) + data


def request(service: str, method: str, payload: bytes, namespace: str, timeout_ns: int) -> bytes:
    """Builds the envelope of a call, the protobuf message `ttrpc.Request`.

    Args:
        service: full name of the service, such as containerd.task.v2.Task (field 1).
        method: name of the method (field 2).
        payload: encoded message of the call (field 3).
        namespace: containerd's namespace; sent as the metadata pair `containerd-namespace-ttrpc`
            (field 5).
        timeout_ns: deadline of the call in ns (field 4); 0 for none.
    """
    pair = message({1: "containerd-namespace-ttrpc", 2: namespace})
    return message({1: service, 2: method, 3: payload, 4: timeout_ns, 5: pair})


def response(data: bytes) -> tuple[bytes, DriverError | None]:
    """Reads the envelope of a response, the protobuf message `ttrpc.Response`.

    Returns:
        The encoded message and None, or b"" and the error of the shim.

    Raises:
        DriverError: code CORRUPT, the data is no protobuf message.
    """
    fields = parse(data)
    status = parse(octets(fields, 1))
    code = number(status, 1)
    if code == 0:
        return octets(fields, 2), None
    text = octets(status, 2).decode(errors="replace")
    error = DriverError("the shim refuses", details=text, code=_CODES.get(code, Code.INTERNAL))
    return b"", error


class Decoder:
    """Collects received bytes and returns (stream id, data) of complete responses."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yields the responses that `data` completes.

        Raises:
            DriverError: code CORRUPT, a length is over the limit.
        """
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            length, stream, kind, _ = _HEADER.unpack_from(self._buffer)
            if length > MAX_DATA_BYTES:
                raise _corrupt(f"a frame has {length} bytes")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            if kind == _RESPONSE:  # data frames belong to streams, which the driver never opens
                yield stream, body


def message(fields: dict[int, int | str | bytes]) -> bytes:
    """Encodes a protobuf message of varints, strings and bytes, without zero and empty fields."""
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
    """Decodes a protobuf message: value by field number; the last value of a repeated field.

    Raises:
        DriverError: code CORRUPT, the data is no protobuf message.
    """
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
            raise _corrupt("a message ends too early")
        fields[key >> 3] = data[at : at + size]
        at += size
    return fields


def number(fields: Fields, tag: int) -> int:
    """Returns a varint field; 0 if absent or of another kind."""
    value = fields.get(tag, 0)
    return value if isinstance(value, int) else 0


def octets(fields: Fields, tag: int) -> bytes:
    """Returns a length-delimited field; empty if absent or of another kind."""
    value = fields.get(tag, b"")
    return value if isinstance(value, bytes) else b""


def wait_request(container_id: str) -> bytes:
    """Builds a WaitRequest for the container's first process."""
    return message({1: container_id})


def wait_answer(payload: bytes) -> tuple[int, int]:
    """Reads a WaitResponse: exit status (128 + n after signal n), and ns since the epoch or 0."""
    fields = parse(payload)
    moment = parse(octets(fields, 2))
    return number(fields, 1), number(moment, 1) * 1_000_000_000 + number(moment, 2)


def state_request(container_id: str) -> bytes:
    """Builds a StateRequest for the container's first process."""
    return message({1: container_id})


def state_answer(payload: bytes) -> tuple[int, str]:
    """Reads a StateResponse: the pid on the host, and a status of STATUSES."""
    fields = parse(payload)
    status = number(fields, 4)
    return number(fields, 3), STATUSES[status] if status < len(STATUSES) else STATUSES[0]


def kill_request(container_id: str, signal: int, *, everyone: bool) -> bytes:
    """Builds a KillRequest for the first process, or for every process of the container."""
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
            raise _corrupt("a number ends too early")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise _corrupt("a number has more than ten bytes")


def _corrupt(details: str) -> DriverError:
    return DriverError("the shim sent malformed ttrpc", details=details, code=Code.CORRUPT)
