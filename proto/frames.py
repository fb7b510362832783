"""Frames between two processes of the driver: four bytes of length, big-endian, and a msgpack map.

This module encodes and decodes, and uses no socket.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgpack

from proto.errors import Code, DriverError

MAX_FRAME_BYTES = 16 * 1024 * 1024
_LENGTH = struct.Struct(">I")

Frame = dict[str, object]


def pack(value: object) -> bytes:
    """Returns the msgpack bytes of a value, in the current form of the format (str8, bin).

    A lone surrogate, which JSON from outside may contain, becomes a question mark.
    """
    packed: bytes | None = msgpack.packb(value, use_bin_type=True, unicode_errors="replace")
    return packed or b""


def encode(frame: Frame) -> bytes:
    """Returns the bytes of a frame, with the length.

    Raises:
        DriverError: code INVALID, the frame is too large.
    """
    body = pack(frame)
    if len(body) > MAX_FRAME_BYTES:
        raise DriverError(
            "a frame between two processes of the driver is too large",
            details=f"{len(body)} bytes, at most {MAX_FRAME_BYTES}",
            code=Code.INVALID,
        )
    return _LENGTH.pack(len(body)) + body


def socket_path(directory: int, name: str) -> str:
    """Returns a short path of a unix socket in an open directory.

    sun_path holds 108 bytes, and a state directory may have any length.

    Args:
        directory: descriptor of the directory; must be open during connect or bind.
        name: name of the socket in the directory.
    """
    return f"/proc/self/fd/{directory}/{name}"


class Decoder:
    """Collects received bytes and returns the complete frames.

    After a DriverError no further frame of the connection can be read.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yields the frames that `data` completes, in order.

        Raises:
            DriverError: code CORRUPT, a length is over the limit or a body is no msgpack map.
        """
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_FRAME_BYTES:
                raise DriverError(
                    "a peer sent a frame that is too large",
                    details=f"{length} bytes, at most {MAX_FRAME_BYTES}",
                    code=Code.CORRUPT,
                )
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield _unpack(body)


def _unpack(body: bytes) -> Frame:
    try:
        frame = msgpack.unpackb(body, raw=False, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise DriverError(
            "a peer sent a frame that is not msgpack", details=str(error), code=Code.CORRUPT
        ) from error
    if not isinstance(frame, dict):
        raise DriverError(
            "a peer sent a frame that is not a map",
            details=type(frame).__name__,
            code=Code.CORRUPT,
        )
    return frame
