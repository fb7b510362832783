"""Log files of one stream, with the names and the rotation of Nomad's logmon.

The files are `<task>.stdout.N` or `<task>.stderr.N` in the allocation's `alloc/logs`. `nomad alloc
logs`, the UI and log shippers read the greatest N last, and a follower goes to a greater N at the
end of a file. So no byte is written to a file after the next file exists.

splice() moves the bytes from the FIFO to the file inside the kernel, and takes exactly the written
bytes out of the FIFO. So each byte is in the FIFO or in a file, whenever the worker is killed. No
state besides the files exists: a new worker goes on with size and content of the last file.
splice() refuses a file opened with O_APPEND, so each write names the present end of the file. A
file that a log shipper has truncated goes on at the new end.

A file ends at the end of a line. The last part of a file (32 KiB, as with logmon) is written byte
by byte until a line ends: the content of a FIFO cannot be read without being taken. A line longer
than this part may be split.

Tasks of other drivers can write to `alloc/logs`. So the directory is opened once without following
a link in its last two names, files are opened within the directory, and a link, a device, a FIFO or
a file with a second name is never opened for writing: the next number is used.
"""

from __future__ import annotations

import os
import stat

from proto.errors import Code
from proto.exhaustion import exhausted
from workers.log import log
from workers.logs import pipe

_LINE_BYTES = 32 * 1024
_PARTS = 8
"""A file has at least this many parts of the length of a line that is never split."""
_MODE = 0o644
_LONGEST_NUMBER = 18
_TRIES = 100


class LogFiles:
    """The files of one stream.

    Args:
        path: path of the files without number, for example `/alloc/logs/redis.stdout`.
        most_files: the oldest files are removed beyond this number.
        most_bytes: largest size of a file.

    Raises:
        DriverError: the directory cannot be opened.
    """

    TAKES_ALL = True
    """A take moves all bytes of a FIFO of any size, up to the end of the file."""

    def __init__(self, path: str, most_files: int, most_bytes: int) -> None:
        self.path = path
        self._directory, self._name = _open_directory(path), path.rpartition("/")[2]
        self._most_files, self._most_bytes = most_files, most_bytes
        self._line_bytes = min(_LINE_BYTES, most_bytes // _PARTS)
        self._file = -1
        self._last = -1
        self._numbers: list[int] = []
        try:
            self._open_last()
        except OSError as error:  # the first line of the task tries again
            log(f"worker: cannot open log file {path}: {error}")

    def take(self, fifo: int) -> int:
        """Moves bytes from the FIFO to the files.

        Returns:
            The number of bytes; 0 if the FIFO is empty and has no writer.

        Raises:
            BlockingIOError: the FIFO is empty and has a writer.
            OSError: the bytes cannot be written, and stay in the FIFO.
        """
        size = self._ready_file()
        room = self._most_bytes - size
        if room > self._line_bytes:
            return self._splice(fifo, room - self._line_bytes, size)
        if b"\n" not in os.pread(self._file, self._line_bytes, size - self._line_bytes):
            return self._splice(fifo, room, size)  # the line is too long already
        return self._end_line(fifo, room, size)

    def flush(self) -> None:
        """Does nothing: no byte is kept outside of FIFO and files."""

    def finish(self) -> None:
        """Does nothing, see `flush`."""

    def unsent(self) -> int:
        """Returns 0, see `flush`."""
        return 0

    def close(self) -> None:
        """Closes the file and the directory."""
        self._close_file()
        os.close(self._directory)

    def _splice(self, fifo: int, count: int, size: int) -> int:
        flags = os.SPLICE_F_NONBLOCK
        return os.splice(fifo, self._file, count, offset_dst=size, flags=flags)

    def _end_line(self, fifo: int, room: int, size: int) -> int:
        """Moves bytes to the end of the line, of the file or of the FIFO."""
        moved = 0
        while moved < room:
            try:
                count = self._splice(fifo, 1, size + moved)
            except BlockingIOError:
                if not moved:
                    raise
                break
            moved += count
            if not count or os.pread(self._file, 1, size + moved - 1) == b"\n":
                break
        return moved

    def _ready_file(self) -> int:
        """Returns the size of the open file, after the change to the next file if necessary."""
        if self._file >= 0:
            status = os.fstat(self._file)
            # A removed file has no name: its content would be lost.
            if status.st_nlink and not self._is_complete(status.st_size):
                return status.st_size
        self._next()
        return 0

    def _is_complete(self, size: int) -> bool:
        room = self._most_bytes - size
        if room > self._line_bytes:
            return False
        return room <= 0 or os.pread(self._file, 1, size - 1) == b"\n"

    def _open_last(self) -> None:
        prefix = f"{self._name}."
        for name in os.listdir(self._directory):  # noqa: PTH208 - pathlib is not in the import set
            number = name.removeprefix(prefix)
            known = number != name and len(number) <= _LONGEST_NUMBER
            if known and number.isascii() and number.isdecimal():
                self._numbers.append(int(number))
        self._numbers.sort()
        if self._numbers:
            self._last = self._numbers[-1]
            self._file = self._open_regular(f"{prefix}{self._last}")
        if self._file < 0:
            self._next()

    def _open_regular(self, name: str) -> int:
        """Opens a file that has only this name; -1 for any other kind of file."""
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        named = os.open(name, flags, dir_fd=self._directory)
        try:
            status = os.fstat(named)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                return -1
            return os.open(f"/proc/self/fd/{named}", os.O_RDWR | os.O_CLOEXEC)
        finally:
            os.close(named)

    def _next(self) -> None:
        """Removes the oldest files, which may make space on the disk, and creates the next file."""
        while len(self._numbers) >= self._most_files:
            self._remove(self._numbers.pop(0))
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        for _ in range(_TRIES):
            self._last += 1
            name = f"{self._name}.{self._last}"
            try:
                created = os.open(name, flags, _MODE, dir_fd=self._directory)
            except FileExistsError:  # not by a worker
                continue
            except OSError:
                self._last -= 1
                raise
            os.fchmod(created, _MODE)  # the umask changes the mode of open
            self._close_file()
            self._file = created
            self._numbers.append(self._last)
            return
        raise FileExistsError(f"{self._name}.{self._last}")

    def _remove(self, number: int) -> None:
        try:
            os.unlink(f"{self._name}.{number}", dir_fd=self._directory)
        except OSError as error:  # gone, or a directory
            log(f"worker: cannot remove log file {self._name}.{number}: {error}")

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _open_directory(path: str) -> int:
    """Opens the directory of the files; links are followed only above `alloc/logs`.

    Raises:
        DriverError: code PRECONDITION or EXHAUSTED.
    """
    directory = path.rpartition("/")[0]
    try:
        named = pipe.open_reference(directory, 2)
        try:
            return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=named)
        finally:
            os.close(named)
    except OSError as error:
        error.filename = None
        raise exhausted(
            f"cannot open the directory of the task's logs {directory}",
            error,
            resolution="Nomad creates the directory with the allocation; no link may replace it",
            code=Code.PRECONDITION,
        ) from error
