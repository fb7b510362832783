"""Image archives that a test opens, and the blobs of the archives."""

from __future__ import annotations

import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from containerd.image import manifests
from containerd.pull import archive_source
from containerd.pull.archive_source import ArchiveSource
from containerd.pull.protocol import Archive
from containerd.reference import parse
from proto.errors import DriverError
from tests.support.registries.images import MANIFEST, digest_of, layer

LAYERS = (layer({"a": b"one"}), layer({"b": b"two" * 100_000}))
NAME = "docker.io/library/demo:1"


def opened(
    directory: Path, path: str = "x.tar", name: str = NAME, wait_s: float = 60
) -> ArchiveSource:
    """Opens an image in a task's directory; the fixture `close_archives` closes the source."""
    archive = Archive(root=str(directory), path=path)
    source = archive_source.open_source(archive, parse(name), time.monotonic() + wait_s)
    _open.append(source)
    return source


_open: list[ArchiveSource] = []


def close_all() -> None:
    """Closes every opened archive."""
    while _open:
        _open.pop().close()


def put(directory: Path, body: bytes) -> Path:
    """Writes an archive into a task's local directory."""
    local = directory / "local"
    local.mkdir(exist_ok=True)
    (local / "x.tar").write_bytes(body)
    return directory


def manifest_of(source: ArchiveSource) -> manifests.Manifest:
    """Returns the manifest of an archive's only platform."""
    body, kind = source.manifest("1")
    document = manifests.read(body, kind, "demo")
    assert isinstance(document, manifests.Manifest)
    assert document.media_type == MANIFEST
    return document


def blobs(source: ArchiveSource) -> list[bytes]:
    """Returns every layer, after a check of manifest and config."""
    manifest = manifest_of(source)
    wanted = (manifest.config, *manifest.layers)
    found = [b"".join(source.attempts(blob.digest, blob.size)[0]()) for blob in wanted]
    assert [digest_of(one) for one in found] == [blob.digest for blob in wanted]
    assert [len(one) for one in found] == [blob.size for blob in wanted]
    return found[1:]


def refused(call: Callable[[], object], words: str) -> DriverError:
    """Returns the error of a call."""
    with pytest.raises(DriverError, match=words) as caught:
        call()
    assert not caught.value.recoverable
    return caught.value


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    """Builds a link, hard or symbolic."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def with_member(body: bytes, info: tarfile.TarInfo, *, first: bool = False) -> bytes:
    """Adds a member without its body to a tar."""
    header = info.tobuf(tarfile.GNU_FORMAT)
    return header + body if first else body[: -_end(body)] + header + bytes(1024)


def _end(body: bytes) -> int:
    return len(body) - len(body.rstrip(b"\0")) // 512 * 512 - 512
