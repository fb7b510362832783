"""Image archives of jobs: whole, damaged, and hostile."""

from __future__ import annotations

import bz2
import gzip
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from containerd.image import manifests
from proto.errors import Code
from tests.support.registries.archives import (
    File,
    docker_files,
    layout_files,
    merged,
    tar_of,
    write_directory,
)
from tests.support.registries.images import build, index, layer
from tests.support.registries.opened_archives import (
    LAYERS,
    blobs,
    link,
    manifest_of,
    opened,
    put,
    refused,
    with_member,
)


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
