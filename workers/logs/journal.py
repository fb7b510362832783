"""Sends the lines of one stream to systemd-journald by journald's native protocol.

The protocol (systemd's "Native Journal Protocol"): a datagram to journald's socket has a line
`NAME=value` for each field. A message that is too large for a datagram goes as the descriptor of a
sealed memfd with the same text. Each line of the log is one message.

A line is read from the FIFO before the line is sent. So a killed worker loses the lines that
journald had not yet taken, at most one read. If journald is away or takes nothing, the lines stay
here and in the FIFO, and the collector waits as for a full disk.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from workers import c_modules
from workers.loop import would_block

_CHUNK_BYTES = 32 * 1024
_LONGEST_BYTES = 512 * 1024
"""A longer line becomes several messages, as with Docker marked with CONTAINER_PARTIAL_MESSAGE."""
_PARTIAL = b"CONTAINER_PARTIAL_MESSAGE=true\n"
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_DESCRIPTOR = struct.Struct("i")


class JournalBusyError(OSError):
    """Journald takes nothing now; `descriptor` is ready for writing as soon as journald does."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(errno.EBUSY, "journald takes no messages")
        self.descriptor = descriptor


class Journal:
    """The journal of one stream.

    Args:
        path: name of the stream in reports.
        socket_path: path of journald's socket.
        fields: fields of all messages, in the form of the protocol.
    """

    TAKES_ALL = False  # 32 KiB at most

    def __init__(self, path: str, socket_path: str, fields: bytes) -> None:
        self.path = path
        self._socket_path = socket_path
        self._fields = fields
        self._socket: c_modules.socket | None = None
        self._ready: list[bytes] = []  # messages
        self._line = b""  # begin of a line, without the end

    def take(self, fifo: int) -> int:
        """Reads from the FIFO and sends the complete lines.

        Returns:
            The number of bytes; 0 if the FIFO is empty and has no writer.

        Raises:
            BlockingIOError: the FIFO is empty and has a writer.
            OSError: journald is away or takes nothing; unsent lines are kept here.
        """
        self.flush()
        data = os.read(fifo, _CHUNK_BYTES)
        lines = (self._line + data).split(b"\n")
        self._line = lines.pop()
        for line in lines:
            self._ready.append(self._message(line))
        if len(self._line) >= _LONGEST_BYTES:
            self._ready.append(_PARTIAL + self._message(self._line))
            self._line = b""
        self.flush()
        return len(data)

    def flush(self) -> None:
        """Connects to journald and sends the kept messages.

        Raises:
            OSError: see `take`.
        """
        if self._socket is None:
            self._connect()
        while self._ready:
            self._send(self._ready[0])
            del self._ready[0]

    def finish(self) -> None:
        """Sends the last line, which may have no end.

        Raises:
            OSError: see `take`.
        """
        if self._line:
            self._ready.append(self._message(self._line))
            self._line = b""
        self.flush()

    def unsent(self) -> int:
        """Returns the number of bytes that journald has not taken."""
        return sum(map(len, self._ready)) + len(self._line)

    def close(self) -> None:
        """Closes the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _message(self, line: bytes) -> bytes:
        return b"".join((self._fields, b"MESSAGE=", line, b"\n"))

    def _send(self, message: bytes) -> None:
        sock = self._socket or self._connect()
        try:
            try:
                sock.send(message)
            except OSError as error:
                if error.errno not in {errno.EMSGSIZE, errno.ENOBUFS}:
                    raise
                _send_sealed(sock, message)
        except OSError as error:
            if would_block(error):
                raise JournalBusyError(sock.fileno()) from error
            self.close()  # another journald has another socket
            raise _away(error) from error

    def _connect(self) -> c_modules.socket:
        created = c_modules.datagram()
        try:
            created.connect(self._socket_path)
        except OSError as error:
            created.close()
            raise _away(error) from error
        self._socket = created
        return created


def _away(error: OSError) -> OSError:
    return OSError(error.errno, f"journald is away: {error.strerror}")


def _send_sealed(sock: c_modules.socket, message: bytes) -> None:
    file = os.memfd_create("log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(message)
        while view:
            view = view[os.write(file, view) :]
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
        rights = (c_modules.SOL_SOCKET, c_modules.SCM_RIGHTS, _DESCRIPTOR.pack(file))
        sock.sendmsg([], [rights])
    finally:
        os.close(file)
