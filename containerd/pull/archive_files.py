"""The files of an image archive, wherever they lie: in a tar, a compressed tar or a directory.

The path is the job's, below a directory that its task can write to: no link is followed, and only
a plain file or a directory is opened.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import importlib
import os
import stat
import threading
import time
import zlib
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from containerd import syscalls
from containerd.pull.tar_index import TarIndex, refused
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from containerd.pull.protocol import Archive

CHUNK_BYTES = 256 * 1024
_BENEATH = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS
_GZIP, _BZIP2, _ZSTD, _XZ = b"\x1f\x8b", b"BZh", b"\x28\xb5\x2f\xfd", b"\xfd7zX"
# Where artifacts land, as for Docker's driver; then the task directory itself.
_PLACES = ("local/", "")


class ArchiveFiles(Protocol):
    """Files by name. Threads may share it."""

    def size(self, name: str) -> int | None:
        """A file's size in bytes, None where there is no such file."""
        ...

    def chunks(self, name: str) -> Iterator[bytes]:
        """A file's content."""
        ...

    def close(self) -> None:
        """Lets the archive go."""
        ...


def open_archive(archive: Archive, deadline: float) -> ArchiveFiles:
    """Opens what the job named.

    Raises:
        DriverError: code INVALID where there is no such file, CORRUPT for one that is no archive.
    """
    descriptor = _open(archive)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(mode):
        return _Directory(descriptor, deadline)
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise DriverError(
            f"load: {archive.path[:200]!r} is neither a file nor a directory", code=Code.INVALID
        )
    return _Tar(os.fdopen(descriptor, "rb"), deadline)


def read(files: ArchiveFiles, name: str, limit_bytes: int) -> bytes:
    """A small file whole.

    Raises:
        DriverError: code CORRUPT where it is missing or too large.
    """
    size = files.size(name)
    if size is None:
        raise refused(f"it has no {name[:128]!r}")
    if size > limit_bytes:
        raise refused(f"{name[:128]!r} is larger than {limit_bytes} bytes")
    body = bytearray()
    for chunk in files.chunks(name):
        body += chunk
        if len(body) > limit_bytes:  # it has grown meanwhile
            raise refused(f"{name[:128]!r} is larger than {limit_bytes} bytes")
    return bytes(body)


def _open(archive: Archive) -> int:
    root = os.open(archive.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for place in _PLACES:
            try:
                return syscalls.open_plain(root, f"{place}{archive.path}", _BENEATH)
            except (FileNotFoundError, NotADirectoryError):
                continue
    except OSError as error:
        outside = error.errno in {errno.EXDEV, errno.ELOOP}
        raise DriverError(
            f"load: {archive.path[:200]!r} cannot be opened",
            details="it leads out of the task's directory, or over a link"
            if outside
            else error.strerror or "",
            resolution="name a plain file in the task's local directory" if outside else "",
            code=Code.INVALID,
        ) from error
    finally:
        os.close(root)
    raise DriverError(
        f"load: there is no {archive.path[:200]!r} in the task's directory",
        resolution="bring it along with an artifact block; paths start at local/",
        code=Code.INVALID,
    )


class _Tar:
    """A tar, plain or compressed as a whole."""

    def __init__(self, file: Any, deadline: float) -> None:
        self._deadline = deadline
        magic = os.pread(file.fileno(), 4, 0)
        self._plain = not magic.startswith((_GZIP, _BZIP2, _ZSTD))
        # A compressed stream has one position, and going back costs a whole decompression.
        self._one_at_a_time = threading.Lock()
        self._opened = file
        self._file: Any = file
        try:
            self._file = _uncompressed(file, magic)
            with _readable():
                self._index = TarIndex(self._file, self._tick)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets the archive go."""
        self._file.close()
        self._opened.close()

    def size(self, name: str) -> int | None:
        member = self._index.find(name)
        return None if member is None else member.size

    def chunks(self, name: str) -> Iterator[bytes]:
        member = self._index.find(name)
        if member is None:
            raise refused(f"it has no {name[:128]!r}")
        left, offset = member.size, member.offset
        lock = contextlib.nullcontext() if self._plain else self._one_at_a_time
        with lock, _readable():
            if not self._plain:
                self._file.seek(offset)
            while left:
                self._tick()
                data = self._read(offset, min(left, CHUNK_BYTES))
                if not data:
                    raise refused("it ends in the middle")
                left -= len(data)
                offset += len(data)
                yield data

    def _read(self, offset: int, count: int) -> bytes:
        if self._plain:
            return os.pread(self._file.fileno(), count, offset)
        data: bytes = self._file.read(count)
        return data

    def _tick(self) -> None:
        _in_time(self._deadline)


class _Directory:
    """A directory, as `skopeo copy … oci:DIR` writes it."""

    def __init__(self, descriptor: int, deadline: float) -> None:
        self._descriptor = descriptor
        self._deadline = deadline

    def close(self) -> None:
        """Lets the archive go."""
        os.close(self._descriptor)

    def size(self, name: str) -> int | None:
        try:
            with self._opened(name) as file:
                return os.fstat(file.fileno()).st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def chunks(self, name: str) -> Iterator[bytes]:
        with self._opened(name) as file:
            # Not what is written to it meanwhile.
            left = os.fstat(file.fileno()).st_size
            while data := file.read(min(left, CHUNK_BYTES)):
                _in_time(self._deadline)
                left -= len(data)
                yield data

    def _opened(self, name: str) -> BinaryIO:
        try:
            descriptor = syscalls.open_plain(self._descriptor, name, _BENEATH)
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as error:
            raise refused(f"{name[:128]!r} is a link, or cannot be read") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise refused(f"{name[:128]!r} is no plain file")
        return os.fdopen(descriptor, "rb")


def _in_time(deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise DriverError(
            "the image archive was not read in time",
            resolution="raise image_pull_timeout",
            recoverable=True,
            code=Code.TIMEOUT,
        )


@contextlib.contextmanager
def _readable() -> Generator[None]:
    """Returns what a damaged compressed stream raises, in words."""
    try:
        yield
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise refused(f"it cannot be read: {type(error).__name__}") from error


def _uncompressed(file: BinaryIO, magic: bytes) -> Any:
    if magic.startswith(_GZIP):
        return gzip.GzipFile(fileobj=file, mode="rb")
    if magic.startswith(_BZIP2):
        return bz2.BZ2File(file)
    if magic.startswith(_ZSTD):
        return _zstd(file)
    if magic.startswith(_XZ):
        # Its header names the memory that reading it takes, up to gigabytes.
        raise DriverError(
            "the image archive is compressed with xz, which this driver does not read",
            resolution="compress it with gzip",
            code=Code.UNSUPPORTED,
        )
    return file


def _zstd(file: BinaryIO) -> Any:
    try:
        module: Any = importlib.import_module("compression.zstd")
    except ImportError:
        raise DriverError(
            "the image archive is compressed with zstd, which this Python cannot read",
            resolution="compress it with gzip, or use Python 3.14",
            code=Code.UNSUPPORTED,
        ) from None
    return module.ZstdFile(file)
