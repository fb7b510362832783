"""Tests of archives with several images: names, platforms and indexes choose the image of a job."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proto.errors import DriverError
from tests.support.registries import images
from tests.support.registries.archives import (
    FULL,
    REF,
    File,
    docker_files,
    layout_files,
    merged,
    new_docker_files,
    two_layers,
    with_index,
)
from tests.support.registries.image_store import Images, loaded
from tests.support.registries.images import FOREIGN

pytestmark = pytest.mark.containerd


def entry_of(image: images.Image, **more: Any) -> dict[str, Any]:
    """Builds the descriptor of an image in index.json."""
    found = {"mediaType": image.media_type, "digest": image.digest, "size": len(image.body)}
    return {**found, **more}


def layout_of(*entries: dict[str, Any], of: list[images.Image]) -> list[File]:
    """Builds OCI's layout with the blobs of the images and the entries."""
    files = layout_files({str(number): image for number, image in enumerate(of)})
    return with_index(files, json.dumps({"manifests": list(entries)}).encode())


@pytest.mark.parametrize(
    "index",
    [
        *(b"", b"null", b"{}", b'{"manifests": null}', b'{"schemaVersion": 2, "manifests": []}'),
        *(b"[]", b'{"manifests": [null]}', b'{"manifests": [{"digest": "", "size": 0}]}'),
    ],
)
def test_an_index_that_says_nothing_leaves_it_to_dockers_manifest(
    store: Images, index: bytes
) -> None:
    """Loads archives of some releases of `docker save`, for an image that was saved by id."""
    layers = two_layers(f"poor {index!r}")
    files = [*docker_files(layers), ("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')]
    ready = loaded(store, with_index(files, index))
    assert ready.config.diff_ids == tuple(images.digest_of(layer) for layer in layers)


@pytest.mark.parametrize("without", ["", "index.json", "manifest.json", "oci-layout"])
def test_what_newer_docker_saves_is_loaded(store: Images, without: str) -> None:
    """Loads each of the two forms with the same result."""
    files = new_docker_files(two_layers(f"new {without}"), "mine:1", without or "all")
    kept = [(name, body) for name, body in files if name != without]
    assert loaded(store, kept).config.cmd == (without or "all",)


def test_a_foreign_layer_that_docker_does_not_save_is_refused_by_its_name(store: Images) -> None:
    kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    files = dict(docker_files(two_layers("foreign")))
    (entry,) = json.loads(files["manifest.json"])
    del files[entry["Layers"][0]]
    diff_ids = json.loads(files[entry["Config"]])["rootfs"]["diff_ids"]
    digest = images.digest_of(b"foreign")
    source = {"mediaType": kind, "digest": digest, "size": 7, "urls": ["http://192.0.2.1/x"]}
    entry["LayerSources"] = {diff_ids[0]: source}
    files["manifest.json"] = json.dumps([entry]).encode()
    with pytest.raises(DriverError, match="has a foreign layer that is only at the URLs"):
        loaded(store, [*files.items()])


def test_an_index_that_lacks_the_image_leaves_it_to_dockers_manifest(store: Images) -> None:
    layers = two_layers("lacks")
    other, gone = images.build(two_layers("other")), images.build(two_layers("gone"))
    wanted = tuple(images.digest_of(layer) for layer in layers)
    for entries, of in (
        # The index names another image, names none, or names an image that was not saved.
        ([entry_of(other, annotations={FULL: "docker.io/library/other:1"})], [other]),
        ([entry_of(other), entry_of(gone)], [other, gone]),
        ([entry_of(gone, annotations={FULL: "docker.io/library/mine:1"})], []),
    ):
        files = [*layout_of(*entries, of=of), *docker_files(layers, ["mine:1"])]
        assert loaded(store, files).config.diff_ids == wanted


@pytest.mark.parametrize("last", ["own", "other"])
@pytest.mark.parametrize("form", ["docker", "oci", "platforms", "unnamed"])
@pytest.mark.parametrize("name", ["mine:1", "another:2"])
def test_of_two_entries_of_one_name_this_machines_is_taken(
    store: Images, form: str, last: str, name: str
) -> None:
    named = {"own": images.host_architecture(), "other": FOREIGN}
    order = [last, next(one for one in named if one != last)][::-1]
    salt = f"{form} {last} {name}"
    if form == "docker":
        files = merged(
            *(
                docker_files(two_layers(f"{one}{salt}"), ["mine:1"], {"Cmd": [one]}, named[one])
                for one in order
            )
        )
    else:
        built = {
            one: images.build(two_layers(f"{one}{salt}"), {"Cmd": [one]}, named[one])
            for one in order
        }
        notes = {} if form == "unnamed" else {"annotations": {REF: "mine:1"}}
        said = {
            one: {"platform": {"os": "linux", "architecture": named[one]}} if form != "oci" else {}
            for one in order
        }
        entries = [entry_of(built[one], **notes, **said[one]) for one in order]
        files = layout_of(*entries, of=[*built.values()])
    ready = loaded(store, files, name)
    assert ready.config.cmd == ("own",)
    assert store.get(name, load="img.tar") == ready


def test_of_two_images_that_share_a_tag_the_named_one_is_taken(store: Images) -> None:
    built = {name: images.build(two_layers(name), {"Cmd": [name]}) for name in ("one", "two")}
    entries = [
        entry_of(image, annotations={FULL: f"docker.io/library/{name}:1", REF: "1"})
        for name, image in built.items()
    ]
    files = layout_of(*entries, of=[*built.values()])
    for name in built:
        assert loaded(store, files, f"{name}:1").config.cmd == (name,)
    with pytest.raises(DriverError, match="has 2 images, and none is") as caught:
        loaded(store, files, "three:1")
    assert "docker.io/library/one:1, docker.io/library/two:1" in caught.value.details


def test_a_bare_tag_of_a_layout_is_a_name(store: Images) -> None:
    """Loads an archive as umoci and skopeo write archives."""
    built = {tag: images.build(two_layers(tag), {"Cmd": [tag]}) for tag in ("v1", "v2")}
    files = layout_files(built)
    for tag in built:
        assert loaded(store, files, f"registry.example/mine:{tag}").config.cmd == (tag,)


def test_a_name_of_podmans_own_builds_is_found_without_its_localhost(store: Images) -> None:
    """Loads an archive of two images from `podman save -m`."""
    files = merged(
        *(docker_files(two_layers(x), [f"localhost/{x}:1"], {"Cmd": [x]}) for x in ("one", "two"))
    )
    for name in ("one:1", "localhost/one:1"):
        assert loaded(store, files, name).config.cmd == ("one",)


def test_an_image_with_two_tags_is_one_image(store: Images) -> None:
    image = images.build(two_layers("two tags"))
    entries = [entry_of(image, annotations={FULL: f"docker.io/library/mine:{tag}"}) for tag in "12"]
    assert loaded(store, layout_of(*entries, of=[image]), "any:5").digest == image.digest


def test_statements_and_signatures_beside_an_image_are_not_counted(store: Images) -> None:
    """Loads archives as buildkit's `oci` exporter, cosign and oras write archives."""
    image = images.build(two_layers("signed"))
    unknown = {"os": "unknown", "architecture": "unknown"}
    entries = [
        entry_of(images.build(two_layers("statement")), platform=unknown),
        entry_of(image, platform={"os": "linux", "architecture": images.host_architecture()}),
        entry_of(images.build(two_layers("sbom")), artifactType="application/spdx+json"),
        {"mediaType": "application/xml", "digest": images.digest_of(b""), "size": 0},
    ]
    assert loaded(store, layout_of(*entries, of=[image])).config.diff_ids == (
        *(images.digest_of(layer) for layer in two_layers("signed")),
    )


def test_an_index_in_an_index_of_an_archive_is_descended(store: Images) -> None:
    """Loads images with statements and with unsaved platforms, as buildkit writes images."""
    image, gone = images.build(two_layers("nested"), {"Cmd": ["nested"]}), images.build([b"x"])
    own = images.host_architecture()
    middle = images.index({own: gone, FOREIGN: gone})
    del middle.manifests[gone.digest]
    inner = images.index({own: image})
    entries = [entry_of(middle), entry_of(inner)]
    outer = images.Image(json.dumps({"manifests": entries}).encode(), images.INDEX)
    outer.manifests = {**inner.manifests, middle.digest: middle.body, inner.digest: inner.body}
    outer.blobs = inner.blobs
    files = layout_files({"docker.io/library/mine:1": outer})
    assert loaded(store, files).config.cmd == ("nested",)
