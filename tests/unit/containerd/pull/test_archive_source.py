"""Image archives of jobs: whole, damaged, and hostile."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import importlib
import io
import json
import lzma
import os
import sys
import tarfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerd.image import manifests
from containerd.pull import archive_source, tar_index
from containerd.pull.archive_source import ArchiveSource
from containerd.pull.protocol import Archive
from containerd.reference import parse
from proto.errors import Code, DriverError
from tests.support.kernel.device_nodes import tripwire
from tests.support.registries.archives import (
    File,
    docker_files,
    layout_files,
    merged,
    tar_of,
    write_directory,
)
from tests.support.registries.images import MANIFEST, build, digest_of, index, layer

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


@pytest.fixture(autouse=True)
def close_archives() -> Iterator[None]:
    """Closes every archive of a test."""
    yield
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


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_docker_saves_is_an_image(
    tmp_path: Path, pack: Callable[[bytes], bytes], kind: int
) -> None:
    assert blobs(opened(put(tmp_path, pack(tar_of(docker_files(LAYERS), kind))))) == [*LAYERS]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_an_archive_of_ocis_layout_is_an_image(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    image = build(LAYERS)
    found = blobs(opened(put(tmp_path, pack(tar_of(layout_files({"": image}))))))
    assert [gzip.decompress(one) for one in found] == [*LAYERS]


def test_a_directory_of_ocis_layout_is_an_image(tmp_path: Path) -> None:
    write_directory(tmp_path / "local/image", layout_files({"": build(LAYERS)}))
    found = blobs(opened(tmp_path, "image"))
    assert [gzip.decompress(one) for one in found] == [*LAYERS]


def test_a_path_is_looked_for_in_local_and_in_the_tasks_directory(tmp_path: Path) -> None:
    put(tmp_path, tar_of(docker_files(LAYERS)))
    assert blobs(opened(tmp_path, "local/x.tar")) == blobs(opened(tmp_path, "x.tar"))


def test_compressed_layers_of_a_docker_archive_keep_their_compression(tmp_path: Path) -> None:
    files = dict(docker_files(LAYERS))
    packed = [
        (name, gzip.compress(body) if name.endswith("/layer.tar") else body)
        for name, body in files.items()
    ]
    source = opened(put(tmp_path, tar_of(packed)))
    assert [gzip.decompress(one) for one in blobs(source)] == [*LAYERS]
    assert manifest_of(source).layers[0].media_type.endswith("tar+gzip")


def test_a_layer_may_be_a_link_to_another_one(tmp_path: Path) -> None:
    """Reads an archive of old versions of docker save, with a link for a repeated layer."""
    files = dict(docker_files((LAYERS[0], LAYERS[0])))
    document = json.loads(files["manifest.json"])
    first = document[0]["Layers"][0]
    document[0]["Layers"][1] = "again/layer.tar"
    files["manifest.json"] = json.dumps(document).encode()
    body = tar_of(files.items())
    assert blobs(opened(put(tmp_path, with_member(body, link("again/layer.tar", f"../{first}")))))


def test_the_image_of_the_jobs_name_is_taken(tmp_path: Path) -> None:
    one, two = build([LAYERS[0]]), build([LAYERS[1]])
    put(tmp_path, tar_of(layout_files({"demo:1": one, "registry.example/other:2": two})))
    assert opened(tmp_path).manifest("1")[0] == one.body
    assert opened(tmp_path, name="registry.example/other:2").manifest("2")[0] == two.body
    error = refused(lambda: opened(tmp_path, name="third:3"), "has 2 images, and none is")
    assert "demo:1, registry.example/other:2" in error.details
    assert opened(tmp_path, name=f"any@{two.digest}").manifest(two.digest)[0] == two.body


def test_the_image_of_the_jobs_name_is_taken_from_dockers_form(tmp_path: Path) -> None:
    one, two = dict(docker_files([LAYERS[0]], ["a:1"])), dict(docker_files([LAYERS[1]], ["b:1"]))
    listed = [*json.loads(one.pop("manifest.json")), *json.loads(two.pop("manifest.json"))]
    files: list[File] = [*one.items(), *two.items(), ("manifest.json", json.dumps(listed).encode())]
    put(tmp_path, tar_of(files))
    assert blobs(opened(tmp_path, name="b:1")) == [LAYERS[1]]
    refused(lambda: opened(tmp_path, name="c:1"), "has 2 images, and none is")


def test_images_of_one_name_are_bounded(tmp_path: Path) -> None:
    """Bounds the number of configs in memory."""
    files = merged(*(docker_files([layer({"n": b"%d" % n})], ["a:1"]) for n in range(65)))
    refused(
        lambda: opened(put(tmp_path, tar_of(files)), name="a:1"), "65 images have the same name"
    )
    same = merged(*[docker_files(LAYERS, ["a:1"])] * 65)
    assert blobs(opened(put(tmp_path, tar_of(same)), name="a:1")) == [*LAYERS]


def test_a_single_image_needs_no_name(tmp_path: Path) -> None:
    put(tmp_path, tar_of(docker_files(LAYERS, tags=())))
    assert blobs(opened(tmp_path, name="registry.example/mine:5")) == [*LAYERS]


def test_an_index_in_an_archive_is_an_index(tmp_path: Path) -> None:
    whole = index({"amd64": build([LAYERS[0]], architecture="amd64"), "arm64": build([LAYERS[1]])})
    put(tmp_path, tar_of(layout_files({"": whole})))
    body, kind = opened(tmp_path).manifest("1")
    assert kind in manifests.INDEX_TYPES
    assert body == whole.body


def test_a_manifest_that_is_not_its_digest_is_refused(tmp_path: Path) -> None:
    image = build(LAYERS)
    files = dict(layout_files({"": image}))
    files[f"blobs/sha256/{image.digest[7:]}"] = image.body + b" "
    error = refused(lambda: opened(put(tmp_path, tar_of(files.items()))).manifest("1"), "other")
    assert error.code is Code.CORRUPT


# --- attacks


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


def device(name: str, kind: bytes) -> tarfile.TarInfo:
    """Builds a member of a kind which is no file."""
    info = tarfile.TarInfo(name)
    info.type = kind
    return info


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (tarfile.TarInfo("../../etc/cron.d/x"), "leads out of the archive"),
        (tarfile.TarInfo("/etc/cron.d/x"), "leads out of the archive"),
        (tarfile.TarInfo("a/../../x"), "leads out of the archive"),
        (tarfile.TarInfo("a/../x"), "leads out of the archive"),
        (link("x", "/etc/shadow"), "leads out of the archive"),
        (link("x", "../../etc/shadow"), "leads out of the archive"),
        (link("x", "../etc/shadow", tarfile.LNKTYPE), "leads out of the archive"),
        (link("x", "/etc/shadow", tarfile.LNKTYPE), "leads out of the archive"),
        (device("x", tarfile.CHRTYPE), "is no regular file"),
        (device("x", tarfile.BLKTYPE), "is no regular file"),
        (device("x", tarfile.FIFOTYPE), "is no regular file"),
        (device("x", tarfile.GNUTYPE_SPARSE), "is no regular file"),
    ],
)
def test_a_member_that_leads_elsewhere_makes_the_archive_refused(
    tmp_path: Path, info: tarfile.TarInfo, words: str
) -> None:
    body = with_member(tar_of(docker_files(LAYERS)), info, first=True)
    assert refused(lambda: opened(put(tmp_path, body)), words).code is Code.CORRUPT


def test_a_link_as_manifest_or_layer_leads_to_a_member_or_nowhere(tmp_path: Path) -> None:
    files = dict(docker_files(LAYERS))
    document = json.loads(files["manifest.json"])
    document[0]["Layers"][1] = "l"
    files["manifest.json"] = json.dumps(document).encode()
    body = tar_of(files.items())
    for target in ("none", "l", "manifest.json/x"):
        broken = with_member(body, link("l", target))
        refused(partial(opened, put(tmp_path, broken)), "leads to no file of the archive")


@pytest.mark.parametrize(
    "size", [tar_index.MAX_ARCHIVE_BYTES, (1 << 62), (1 << 80)], ids=["limit", "62", "80"]
)
def test_a_member_larger_than_any_disk_is_refused(tmp_path: Path, size: int) -> None:
    info = tarfile.TarInfo("huge")
    info.size = size
    body = with_member(tar_of(docker_files(LAYERS)), info, first=True)
    refused(lambda: opened(put(tmp_path, body)), "larger than 64 GiB")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE])
def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path, kind: bytes) -> None:
    info = device("x", kind)
    info.size = 8 * 1024**3
    body = with_member(tar_of([]), info, first=True)
    refused(lambda: opened(put(tmp_path, body)), "larger than the headers of all known tools")


def test_members_without_end_are_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT)
    many = b"".join(
        tarfile.TarInfo(f"{number}").tobuf(tarfile.GNU_FORMAT) for number in range(70_000)
    )
    refused(lambda: opened(put(tmp_path, gzip.compress(header + many, 1))), "over 65536 members")


def extra(body: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """Builds a header which completes the next header."""
    info = device("x", kind)
    info.size = len(body)
    return info.tobuf(tarfile.GNU_FORMAT) + body + bytes(-len(body) % 512)


def records(count: int) -> bytes:
    """Builds the body of a pax header, with unique records."""
    lines = (f"k{os.urandom(6).hex()}=v".encode() for _ in range(count))
    return b"".join(b"%d %s\n" % (len(line) + 4, line) for line in lines)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_w9_headers_without_a_member_are_counted(tmp_path: Path, kind: bytes) -> None:
    """Bounds the headers: the reader would read each header and keep the fields."""
    body = extra(records(2500), kind) * 100
    packed = gzip.compress(body + tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT), 1)
    refused(lambda: opened(put(tmp_path, packed)), "a member has over 8 headers")


def test_w9_what_nobody_reads_of_a_header_is_not_kept(tmp_path: Path) -> None:
    """Checks that a member with many records costs no more memory than a member with few."""
    files = tar_of(docker_files(LAYERS))
    member = extra(records(2500)) + tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT)
    put(tmp_path, gzip.compress(member * 200 + files, 1))
    tracemalloc.start()
    try:
        opened(tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 1024 * 1024


def test_directories_without_end_are_refused(tmp_path: Path) -> None:
    header = device("d", tarfile.DIRTYPE).tobuf(tarfile.GNU_FORMAT)
    packed = gzip.compress(header * 300_000, 1)
    refused(lambda: opened(put(tmp_path, packed)), "has over 65536 members")


@pytest.mark.parametrize(
    "body", [b"5 a=\n9", b"99 a=b\n", b"5 ab\n", b"a=b\n", b"0 a=b\n", b"-5 a=b\n", b"6 a=b\nx"]
)
def test_a_pax_header_that_cannot_be_read_is_refused(tmp_path: Path, body: bytes) -> None:
    packed = extra(body) + tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    refused(lambda: opened(put(tmp_path, packed)), "a header cannot be read")


def test_names_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    def member(number: int) -> bytes:
        name = f"{number:08}".encode() + b"n" * 60_000
        long = device("", tarfile.GNUTYPE_LONGNAME)
        long.size = len(name)
        padding = bytes(-len(name) % 512)
        return long.tobuf(tarfile.GNU_FORMAT) + name + padding + tarfile.TarInfo("x").tobuf()

    body = b"".join(member(number) for number in range(300))
    refused(lambda: opened(put(tmp_path, gzip.compress(body, 1))), "are longer than 16 MiB")


def test_a_bomb_in_gzip_ends_with_the_pulls_time(tmp_path: Path) -> None:
    body = tar_of(docker_files(LAYERS))
    with pytest.raises(DriverError, match="took too long") as caught:
        opened(put(tmp_path, gzip.compress(body)), wait_s=0)
    assert caught.value.code is Code.TIMEOUT


@pytest.mark.parametrize("name", ["manifest.json", "index.json"])
def test_a_document_that_is_too_large_is_refused(tmp_path: Path, name: str) -> None:
    files: list[File] = [("oci-layout", b"{}"), (name, b" " * (4 * 1024 * 1024 + 1))]
    refused(lambda: opened(put(tmp_path, tar_of(files))), "is larger than")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "neither index.json nor manifest.json"),
        ([("manifest.json", b"{")], "manifest.json is not JSON"),
        ([("manifest.json", b"[" * 100_000)], "manifest.json is not JSON"),
        ([("manifest.json", b"[]")], "has 0 images"),
        ([("index.json", b"null")], "neither index.json nor manifest.json"),
        ([("manifest.json", b"[5]")], "has 0 images"),
        ([("manifest.json", b"[{}]")], "no 'no config' in the archive"),
        ([("manifest.json", b'[{"Config": "c"}]')], "no 'c' in the archive"),
        ([("manifest.json", b'[{"Config": "c"}]'), ("c", b"{}")], "no rootfs"),
        ([("manifest.json", b'[{"Config": "../../etc/shadow"}]')], "no '../../etc/shadow' in"),
        (
            [
                ("manifest.json", b'[{"Config": "c", "Layers": ["l"]}]'),
                ("c", b'{"rootfs": {"diff_ids": []}}'),
            ],
            "the config has 0 layers, manifest.json has 1",
        ),
        (
            [
                ("manifest.json", b'[{"Config": "c", "Layers": ["/etc/shadow"]}]'),
                ("c", b'{"rootfs": {"diff_ids": ["sha256:0"]}}'),
            ],
            "no '/etc/shadow' in the archive",
        ),
        ([("oci-layout", b"{}"), ("index.json", b"[]")], "has 0 images"),
        ([("oci-layout", b"{}"), ("index.json", b'{"manifests": [{}]}')], "no digest or size"),
        (
            [
                ("oci-layout", b"{}"),
                ("index.json", b'{"manifests": [{"digest": "../../../etc/shadow", "size": 5}]}'),
            ],
            "is not a digest",
        ),
    ],
)
def test_an_archive_without_an_image_says_what_it_lacks(
    tmp_path: Path, files: Sequence[File], words: str
) -> None:
    with pytest.raises(DriverError) as caught:
        opened(put(tmp_path, tar_of(files))).manifest("1")
    assert words in str(caught.value)


@given(st.binary(max_size=2000), st.integers(0, 5000))
def test_any_damage_is_a_refusal_and_nothing_else(noise: bytes, at: int) -> None:
    body = tar_of(docker_files([LAYERS[0]]))
    for damaged in (noise, body[:at] + noise + body[at + len(noise) :], body[:at]):
        with contextlib.suppress(DriverError):
            tar_index.TarIndex(io.BytesIO(damaged), lambda: None)


def test_a_cut_or_damaged_gzip_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(tar_of(docker_files(LAYERS)))
    refused(lambda: opened(put(tmp_path, packed[:-40])), "archive cannot be read")
    refused(lambda: opened(put(tmp_path, packed[:20] + b"xxxx" + packed[24:])), "refused")


def test_xz_is_named(tmp_path: Path) -> None:
    put(tmp_path, lzma.compress(tar_of(docker_files(LAYERS))))
    error = refused(lambda: opened(tmp_path), "compressed with xz, which this driver does not")
    assert error.code is Code.UNSUPPORTED


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="this Python reads zstd")
def test_zstd_is_named_where_python_cannot_read_it(tmp_path: Path) -> None:
    put(tmp_path, b"\x28\xb5\x2f\xfd" + bytes(100))
    error = refused(lambda: opened(tmp_path), "compressed with zstd, which this Python cannot")
    assert error.code is Code.UNSUPPORTED


@pytest.mark.skipif(sys.version_info < (3, 14), reason="zstd is read from Python 3.14")
def test_zstd_is_read_and_damaged_zstd_is_refused(tmp_path: Path) -> None:
    zstd: Any = importlib.import_module("compression.zstd")
    packed = zstd.compress(tar_of(docker_files(LAYERS)))
    assert blobs(opened(put(tmp_path, packed))) == [*LAYERS]
    for damaged in (packed[:-40], packed[:4] + b"\xff" * 100, packed[:4] + bytes(100)):
        put(tmp_path, damaged)
        refused(partial(opened, tmp_path), "archive cannot be read")


def test_a_link_in_the_tasks_directory_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.tar").write_bytes(tar_of(docker_files(LAYERS)))
    task = tmp_path / "task"
    (task / "local").mkdir(parents=True)
    (task / "local/file").symlink_to(outside / "x.tar")
    (task / "local/dir").symlink_to(outside)
    (task / "local/up").symlink_to("../..")
    (task / "local/inside").symlink_to("own")
    (task / "local/own").write_bytes(tar_of(docker_files(LAYERS)))
    for path in ("file", "dir/x.tar", "local/up/outside/x.tar", "inside", "/etc/passwd"):
        error = refused(partial(opened, task, path), "cannot be opened|there is no")
        assert error.code is Code.INVALID
    assert "over a link" in refused(lambda: opened(task, "file"), "cannot be opened").details


def test_a_local_directory_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    put(tmp_path, tar_of(docker_files(LAYERS)))
    task = tmp_path / "task"
    task.mkdir()
    (task / "local").symlink_to(tmp_path / "local")
    refused(lambda: opened(task), "cannot be opened")


def test_a_path_that_climbs_out_is_refused(tmp_path: Path) -> None:
    put(tmp_path, tar_of(docker_files(LAYERS)))
    task = tmp_path / "task"
    (task / "local").mkdir(parents=True)
    refused(lambda: opened(task, "../../local/x.tar"), "cannot be opened")


def test_a_fifo_or_a_missing_file_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    os.mkfifo(tmp_path / "local/pipe")
    refused(lambda: opened(tmp_path, "pipe"), "is neither a file nor a directory")
    error = refused(lambda: opened(tmp_path, "none.tar"), "load: no 'none.tar'")
    assert error.code is Code.INVALID


def test_links_and_fifos_in_a_layout_directory_are_refused(tmp_path: Path) -> None:
    image = build(LAYERS)
    root = tmp_path / "local/image"
    write_directory(root, layout_files({"": image}))
    (root / "index.json").rename(tmp_path / "index.json")
    (root / "index.json").symlink_to(tmp_path / "index.json")
    refused(lambda: opened(tmp_path, "image"), "is a link, or cannot be read")
    (root / "index.json").unlink()
    os.mkfifo(root / "index.json")
    refused(lambda: opened(tmp_path, "image"), "is no regular file")


def test_a_device_as_an_archive_is_not_opened(tmp_path: Path) -> None:
    """Refuses a device, which a task may create in the local directory for the next start."""
    (tmp_path / "local").mkdir()
    tripwire(tmp_path / "local/device")
    refused(lambda: opened(tmp_path, "device"), "is neither a file nor a directory")
    root = tmp_path / "local/image"
    write_directory(root, layout_files({"": build(LAYERS)}))
    (root / "index.json").unlink()
    tripwire(root / "index.json")
    refused(lambda: opened(tmp_path, "image"), "is no regular file")
