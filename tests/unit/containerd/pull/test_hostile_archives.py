"""Image archives made to reach out of the archive, or to fill memory and time."""

from __future__ import annotations

import contextlib
import gzip
import importlib
import io
import json
import lzma
import os
import sys
import tarfile
import tracemalloc
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerd.pull import tar_index
from proto.errors import Code, DriverError
from tests.support.kernel.device_nodes import tripwire
from tests.support.registries.archives import (
    File,
    docker_files,
    layout_files,
    tar_of,
    write_directory,
)
from tests.support.registries.images import build
from tests.support.registries.opened_archives import (
    LAYERS,
    blobs,
    link,
    opened,
    put,
    refused,
    with_member,
)


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
