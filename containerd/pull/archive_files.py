"""Files of an image archive: a tar, a compressed tar or a directory.

A job names the path, below a directory that its task can write to. So no link is followed, and only
regular files and directories are opened.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import importlib
import os
import stat
import sys
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
_GZIP, _BZIP2, _ZSTD, _XZ = b"\x1f\x8b", b"BZh", b"\x28\xb5\x2f\xfd", b"\xfd7zX"
# Artifacts are in local/, as with Nomad's Docker driver; then the task directory itself.
_PLACES = ("local/", "")


class ArchiveFiles(Protocol):
    """Files by name. Threads may share an instance."""

    def size(self, name: str) -> int | None:
        """Returns a file's size in bytes; None for a missing file."""
        ...

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yields a file's content."""
        ...

    def close(self) -> None:
        """Closes the archive."""
        ...


def open_archive(archive: Archive, deadline: float) -> ArchiveFiles:
    """Opens the archive that a job names.

    Args:
        archive: the path.
        deadline: `time.monotonic()` at which reading fails.

    Raises:
        DriverError: code INVALID for a missing file, CORRUPT for a file that is no archive.
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
    """Returns a small file.

    Raises:
        DriverError: code CORRUPT; the file is missing or larger than limit_bytes.
    """
    size = files.size(name)
    if size is None:
        raise refused(f"no {name[:128]!r} in the archive")
    if size > limit_bytes:
        raise refused(f"{name[:128]!r} is larger than {limit_bytes} bytes")
    body = bytearray()
    for chunk in files.chunks(name):
        body += chunk
        if len(body) > limit_bytes:  # the file has grown meanwhile
            raise refused(f"{name[:128]!r} is larger than {limit_bytes} bytes")
    return bytes(body)


def _open(archive: Archive) -> int:
    root = os.open(archive.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for place in _PLACES:
            try:
                return syscalls.open_plain(root, f"{place}{archive.path}", syscalls.INSIDE)
            except (FileNotFoundError, NotADirectoryError):
                continue
    except OSError as error:
        outside = error.errno in {errno.EXDEV, errno.ELOOP}
        raise DriverError(
            f"load: {archive.path[:200]!r} cannot be opened",
            details="the path leads out of the task's directory, or over a link"
            if outside
            else error.strerror or "",
            resolution="name a regular file in the task's local directory" if outside else "",
            code=Code.INVALID,
        ) from error
    finally:
        os.close(root)
    raise DriverError(
        f"load: no {archive.path[:200]!r} in the task's directory",
        resolution="download the archive with an artifact block; paths start at local/",
        code=Code.INVALID,
    )


class _Tar:
    """A tar, or a compressed tar."""

    def __init__(self, file: Any, deadline: float) -> None:
        self._deadline = deadline
        magic = os.pread(file.fileno(), 4, 0)
        self._plain = not magic.startswith((_GZIP, _BZIP2, _ZSTD))
        # A compressed stream has one position; a seek back decompresses again from the start.
        self._position_lock = threading.Lock()
        self._opened = file
        self._file: Any = file
        try:
            self._file = _uncompressed(file, magic)
            with _stream_errors():
                self._index = TarIndex(self._file, self._tick)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the archive."""
        self._file.close()
        self._opened.close()

    def size(self, name: str) -> int | None:
        member = self._index.find(name)
        return None if member is None else member.size

    def chunks(self, name: str) -> Iterator[bytes]:
        member = self._index.find(name)
        if member is None:
            raise refused(f"no {name[:128]!r} in the archive")
        left, offset = member.size, member.offset
        lock = contextlib.nullcontext() if self._plain else self._position_lock
        with lock, _stream_errors():
            if not self._plain:
                self._file.seek(offset)
            while left:
                self._tick()
                data = self._read(offset, min(left, CHUNK_BYTES))
                if not data:
                    raise refused("the archive is cut off")
                left -= len(data)
                offset += len(data)
                yield data

    def _read(self, offset: int, count: int) -> bytes:
        if self._plain:
            return os.pread(self._file.fileno(), count, offset)
        data: bytes = self._file.read(count)
        return data

    def _tick(self) -> None:
        _check_deadline(self._deadline)


class _Directory:
    """A directory, such as `skopeo copy … oci:DIR` writes."""

    def __init__(self, descriptor: int, deadline: float) -> None:
        self._descriptor = descriptor
        self._deadline = deadline

    def close(self) -> None:
        """Closes the archive."""
        os.close(self._descriptor)

    def size(self, name: str) -> int | None:
        try:
            with self._opened(name) as file:
                return os.fstat(file.fileno()).st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def chunks(self, name: str) -> Iterator[bytes]:
        with self._opened(name) as file:
            # Bytes that are appended meanwhile are not read.
            left = os.fstat(file.fileno()).st_size
            while data := file.read(min(left, CHUNK_BYTES)):
                _check_deadline(self._deadline)
                left -= len(data)
                yield data

    def _opened(self, name: str) -> BinaryIO:
        try:
            descriptor = syscalls.open_plain(self._descriptor, name, syscalls.INSIDE)
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as error:
            raise refused(f"{name[:128]!r} is a link, or cannot be read") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise refused(f"{name[:128]!r} is no regular file")
        return os.fdopen(descriptor, "rb")


def _check_deadline(deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise DriverError(
            "reading the image archive took too long",
            resolution="raise image_pull_timeout",
            recoverable=True,
            code=Code.TIMEOUT,
        )


@contextlib.contextmanager
def _stream_errors() -> Generator[None]:
    """Replaces the errors of a damaged compressed stream by a DriverError."""
    try:
        yield
    except _stream_failures() as error:
        raise refused(f"the archive cannot be read: {type(error).__name__}") from error


def _stream_failures() -> tuple[type[Exception], ...]:
    """Returns the errors of damaged streams. Only an archive with zstd loads the module of zstd."""
    zstd: Any = sys.modules.get("compression.zstd")
    return (OSError, EOFError, zlib.error, ValueError, *((zstd.ZstdError,) if zstd else ()))


def _uncompressed(file: BinaryIO, magic: bytes) -> Any:
    if magic.startswith(_GZIP):
        return gzip.GzipFile(fileobj=file, mode="rb")
    if magic.startswith(_BZIP2):
        return bz2.BZ2File(file)
    if magic.startswith(_ZSTD):
        return _zstd(file)
    if magic.startswith(_XZ):
        # The header of xz sets the memory of the reader, up to gigabytes.
        raise DriverError(
            "the image archive is compressed with xz, which this driver does not read",
            resolution="compress the archive with gzip",
            code=Code.UNSUPPORTED,
        )
    return file


def _zstd(file: BinaryIO) -> Any:
    try:
        module: Any = importlib.import_module("compression.zstd")
    except ImportError:
        raise DriverError(
            "the image archive is compressed with zstd, which this Python cannot read",
            resolution="compress the archive with gzip, or use Python 3.14",
            code=Code.UNSUPPORTED,
        ) from None
    return module.ZstdFile(file)
