"""Pulls of images whose layers are unpacked already: such layers are not fetched."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from proto.errors import Code, DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.registries import images
from tests.support.registries.image_store import Images
from tests.support.registries.images import Image
from tests.support.registries.scripted_registry import ScriptedRegistry

pytestmark = pytest.mark.containerd


def fresh_layer(name: str) -> bytes:
    """Builds a layer that containerd has never seen."""
    return images.layer({name: os.urandom(5000)})


def again(layers: Sequence[bytes], level: int) -> Image:
    """Builds an image whose blobs have another compression, and so other digests."""
    image = images.build(layers)
    manifest = json.loads(image.body)
    for body, described in zip(layers, manifest["layers"], strict=True):
        packed = gzip.compress(body, compresslevel=level, mtime=7)
        del image.blobs[described["digest"]]
        image.blobs[images.digest_of(packed)] = packed
        described.update(digest=images.digest_of(packed), size=len(packed))
    image.body = json.dumps(manifest).encode()
    return image


def fetched(registry: ScriptedRegistry) -> int:
    """Counts the layers that were requested."""
    blobs = registry.image.blobs
    layers = [digest for digest in blobs if b"diff_ids" not in blobs[digest]]
    return len([digest for digest in layers if registry.blobs(digest)])


def test_only_the_layers_above_the_unpacked_ones_are_fetched(store: Images) -> None:
    base = [fresh_layer("a"), fresh_layer("b")]
    with ScriptedRegistry(images.build(base)) as first:
        store.get(f"{first.host}/base:1")
    for more in ([], [fresh_layer("c")], [fresh_layer("d"), fresh_layer("e")]):
        image = again([*base, *more], 9)
        with ScriptedRegistry(image) as registry:
            ready = store.get(f"{registry.host}/above:1")
            assert ready.digest == image.digest
            assert fetched(registry) == len(more)


def test_an_image_without_its_blobs_outlives_the_image_it_shares_layers_with(
    store: Images, containerd: ContainerdDaemon
) -> None:
    base = [fresh_layer("a"), fresh_layer("b")]
    with ScriptedRegistry(images.build(base)) as first, ScriptedRegistry(again(base, 9)) as second:
        earlier, later = f"{first.host}/gone:1", f"{second.host}/stays:1"
        store.get(earlier)
        store.get(later)
        containerd.ctr("images", "rm", "--sync", earlier)
        assert store.get(later, image_pull_policy="never").name == later
        assert fetched(second) == 0


def test_another_snapshotter_and_another_client_get_the_blobs_from_the_registry(
    store: Images, containerd: ContainerdDaemon, tmp_path: Path
) -> None:
    base = [fresh_layer("a"), fresh_layer("b")]
    archive = str(tmp_path / "image.tar")
    with ScriptedRegistry(images.build(base)) as first:
        store.get(f"{first.host}/base:1")
    for by_ctr in (False, True):
        with ScriptedRegistry(again(base, 5 + by_ctr)) as registry:
            name = f"{registry.host}/wanted:1"
            store.get(name)
            assert fetched(registry) == 0
            # An export needs the blobs.
            with pytest.raises(AssertionError, match="not found"):
                containerd.ctr("images", "export", archive, name)
            if by_ctr:
                containerd.ctr("content", "fetch", "--plain-http", name)
            else:
                assert store.get(name, snapshotter="native").digest == registry.image.digest
            assert fetched(registry) == 2
            containerd.ctr("images", "export", archive, name)


def test_an_unpacked_layer_is_not_taken_for_a_layer_of_another_image(store: Images) -> None:
    base = [fresh_layer("a"), fresh_layer("b")]
    with ScriptedRegistry(images.build(base)) as first:
        store.get(f"{first.host}/base:1")
    # The same upper layer above another lower layer is another snapshot.
    lower = fresh_layer("z")
    with ScriptedRegistry(again([lower, base[1]], 9)) as registry:
        store.get(f"{registry.host}/other:1")
        assert fetched(registry) == 2
    # A manifest with fewer layers than the config is refused, also if all snapshots exist.
    cut = images.build(base)
    manifest = json.loads(cut.body)
    del manifest["layers"][1]
    cut.body = json.dumps(manifest).encode()
    with ScriptedRegistry(cut) as registry:
        with pytest.raises(DriverError, match="image config and manifest do not match") as caught:
            store.get(f"{registry.host}/cut:1")
        assert caught.value.code is Code.CORRUPT
