"""Tests of images of every registry kind: pulled, read back from containerd and previewed."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from containerd.api import features, methods
from containerd.image import manifests
from containerd.image.manifests import Descriptor
from containerd.pull import content_store
from containerd.pull.calls import SyncCalls
from proto.containerd import images_pb2, types_pb2
from proto.errors import Code, DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.registries import images
from tests.support.registries.image_store import Images, got, refusal
from tests.support.registries.images import INDEX, LAYER, MANIFEST, digest_of
from tests.support.registries.recording_server import Answer, RecordingServer, Request
from tests.support.registries.scripted_registry import ScriptedRegistry
from tests.support.registries.served_images import Served, entry

pytestmark = pytest.mark.containerd


def keep(containerd: ContainerdDaemon, name: str, body: bytes, media_type: str) -> None:
    """Puts a document into containerd as an image, as another program may have done."""
    calls = SyncCalls(containerd.address, containerd.namespace, "")
    blob = Descriptor(media_type=media_type, digest=digest_of(body), size=len(body))
    refers = {
        f"containerd.io/gc.ref.content.{number}": one["digest"]
        for number, one in enumerate(described(json.loads(body)))
    }
    store = content_store.ContentStore(calls)
    store.write(blob, iter([body]), refers, lambda _: None)
    target = types_pb2.Descriptor(media_type=media_type, digest=blob.digest, size=blob.size)
    image = images_pb2.Image(name=name, target=target)
    request = images_pb2.CreateImageRequest(image=image)
    calls(methods.IMAGE_CREATE, request, "name an image", 30)


def described(fields: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the descriptors in a document."""
    return [
        *([fields["config"]] if "config" in fields else []),
        *(fields.get("layers") or []),
        *(fields.get("manifests") or []),
    ]


def test_more_than_a_blobs_size_is_never_stored(containerd: ContainerdDaemon) -> None:
    """Covers any source: the first piece beyond the size is refused."""
    store = content_store.ContentStore(SyncCalls(containerd.address, containerd.namespace, ""))
    body = os.urandom(3000)
    blob = Descriptor(media_type=LAYER, digest=digest_of(body), size=1000)
    pieces = iter([body[:1000], body[1000:2000], body[2000:]])
    with pytest.raises(DriverError, match="is larger than its manifest says"):
        store.write(blob, pieces, {}, lambda _: None)
    assert list(pieces) == [body[2000:]]
    assert "nomad-driver" not in containerd.ctr("content", "active")


@pytest.mark.parametrize("media_type", [INDEX, MANIFEST, "application/octet-stream", ""])
def test_a_document_of_two_kinds_is_refused_wherever_it_is(
    store: Images,
    containerd: ContainerdDaemon,
    served: Served,
    server: RecordingServer,
    media_type: str,
) -> None:
    mine = served.document(served.manifest("index"))
    both = {**served.manifest("manifest"), "manifests": [mine]}
    both.pop("mediaType")
    served.document(both, media_type, tag="1")
    assert "is ambiguous" in refusal(store, server).brief
    image = f"{server.host}/x:2"
    keep(containerd, image, json.dumps(both).encode(), media_type or MANIFEST)
    for policy in ("never", "missing"):
        with pytest.raises(DriverError, match="is ambiguous"):
            store.get(image, image_pull_policy=policy)
    containerd.ctr("images", "rm", image)


@pytest.mark.parametrize("nested", [True, False])
def test_a_document_that_is_called_what_it_is_not_is_refused(
    store: Images, served: Served, server: RecordingServer, *, nested: bool
) -> None:
    manifest = served.manifest("manifest")
    index = served.index(served.document(served.manifest("index")))
    for tag, fields, media_type in (("1", manifest, INDEX), ("2", index, MANIFEST)):
        if nested:
            last = served.document(fields, media_type)
            served.document(served.index(last), tag=tag)
        else:
            served.document(fields, media_type, tag=tag)
        assert "is ambiguous" in refusal(store, server, tag).brief


@pytest.mark.parametrize(
    "media_type",
    [
        "",
        "application/octet-stream",
        "text/plain",
        "text/plain; charset=utf-8",
        "application/json",
        MANIFEST.upper(),
        f"{MANIFEST}; charset=utf-8",
        "application/vnd.docker.distribution.manifest.v2+json",
    ],
)
def test_a_type_that_says_nothing_leaves_it_to_the_document(
    store: Images,
    containerd: ContainerdDaemon,
    served: Served,
    server: RecordingServer,
    media_type: str,
) -> None:
    last = served.document(served.manifest("typed"), media_type, tag="1")
    assert got(store, containerd, f"{server.host}/x:1").config.cmd == ("typed",)
    image = f"{server.host}/x:1"
    record = store.record(image)
    assert record is not None
    assert record.media_type in manifests.MANIFEST_TYPES
    index = served.index(last)
    index.pop("mediaType")
    served.document(index, "application/octet-stream", tag="2")
    assert got(store, containerd, f"{server.host}/x:2").config.cmd == ("typed",)


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP"])
def test_a_document_that_came_in_gzip_is_unpacked(
    store: Images, containerd: ContainerdDaemon, encoding: str
) -> None:
    """Covers a web server or a proxy that packs JSON against the request."""
    image = images.build([images.layer({"content": os.urandom(2000)})], {"Cmd": ["packed"]})

    def packed(request: Request, honest: Answer) -> Answer:
        if request.method == "HEAD" or "/manifests/" not in request.path:
            return honest
        headers = {**honest.headers, "Content-Encoding": encoding}
        return Answer(200, headers, gzip.compress(honest.body))

    with ScriptedRegistry(image, packed) as registry:
        found = got(store, containerd, f"{registry.host}/x:1")
    assert (found.digest, found.config.cmd) == (image.digest, ("packed",))


def test_a_document_that_unpacks_to_too_much_is_refused(store: Images) -> None:
    bomb = gzip.compress(b" " * (2 * manifests.DOCUMENT_LIMIT_BYTES))
    answer = Answer(200, {"Content-Encoding": "gzip", "Content-Type": MANIFEST}, bomb)
    with (
        RecordingServer(lambda _: answer) as server,
        pytest.raises(DriverError, match="sent an answer that is too large"),
    ):
        store.get(f"{server.host}/x:1")


def test_schema_1_is_refused_by_its_own_name(
    store: Images, served: Served, server: RecordingServer
) -> None:
    kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    fields = {"schemaVersion": 1, "name": "x", "fsLayers": [{"blobSum": digest_of(b"")}]}
    served.document(fields, kind, tag="1")
    assert "has a manifest of the old schema 1" in refusal(store, server).brief


@pytest.mark.parametrize(
    ("media_type", "packed"),
    [
        (LAYER, "no"),
        (LAYER, "gzip"),
        (f"{LAYER}+gzip", "no"),
        (f"{LAYER}+gzip".upper(), "gzip"),
        (f"{LAYER}+zstd", "zstd"),
        ("application/vnd.docker.image.rootfs.diff.tar", "no"),
        ("application/vnd.docker.image.rootfs.diff.tar", "gzip"),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", "gzip"),
        ("application/vnd.docker.image.rootfs.diff.tar+gzip", "gzip"),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip; charset=binary", "gzip"),
        ("application/vnd.docker.image.rootfs.diff.tar.zstd", "zstd"),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "gzip"),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "gzip"),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar", "no"),
    ],
)
def test_layers_of_every_type_are_unpacked(
    store: Images,
    containerd: ContainerdDaemon,
    served: Served,
    server: RecordingServer,
    media_type: str,
    packed: str,
) -> None:
    if packed == "zstd" and not features.of(containerd.version)[features.ZSTD]:
        pytest.skip(f"containerd {containerd.version} refuses layers compressed with zstd")
    body = images.layer({"content": os.urandom(2000)})
    packers: dict[str, Callable[[bytes], bytes]] = {
        "no": bytes,
        "gzip": gzip.compress,
        "zstd": images.zstd,
    }
    layer = served.blob(packers[packed](body), media_type)
    served.document(served.manifest("layered", [layer], body), tag="1")
    assert got(store, containerd, f"{server.host}/x:1").config.diff_ids == (digest_of(body),)


@pytest.mark.parametrize("urls", [["http://192.0.2.1/layer"], []])
def test_a_foreign_layer_that_the_registry_lacks_is_refused_by_its_name(
    store: Images, served: Served, server: RecordingServer, urls: list[str]
) -> None:
    kind = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    own = served.manifest("x")["layers"][0]
    foreign = {"mediaType": kind, "digest": digest_of(b"foreign"), "size": 7, "urls": urls}
    rootfs = {"type": "layers", "diff_ids": [digest_of(b"lower"), digest_of(b"upper")]}
    served.document(served.manifest("x", [own, foreign], rootfs=rootfs), tag="1")
    error = refusal(store, server)
    assert "has a foreign layer" in error.brief
    assert "encryption" not in str(error)
    assert ("URLs" in error.brief) == bool(urls)
    assert not any(own["digest"] in request.path for request in server.requests)


@pytest.mark.parametrize(
    "kind", [f"{LAYER}+gzip+encrypted", f"{LAYER}+encrypted", f"{LAYER}+zstd+encrypted"]
)
def test_an_encrypted_layer_is_refused_by_its_name(
    store: Images, served: Served, server: RecordingServer, kind: str
) -> None:
    layer = served.blob(os.urandom(100), kind)
    served.document(served.manifest("x", [layer]), tag="1")
    error = refusal(store, server)
    assert "has encrypted layers" in error.brief
    assert not any(layer["digest"] in request.path for request in server.requests)


@pytest.mark.parametrize("kind", ["application/octet-stream", ""])
def test_a_layer_of_a_type_that_says_nothing_makes_no_artifact(
    store: Images, served: Served, server: RecordingServer, kind: str
) -> None:
    served.document(served.manifest("x", [served.blob(os.urandom(50), kind)]), tag="1")
    error = refusal(store, server)
    assert "has a layer that cannot be unpacked" in error.brief
    assert error.details == repr(kind)


ARTIFACTS: dict[str, tuple[str, str, str, str]] = {
    "a chart": (
        "application/vnd.cncf.helm.config.v1+json",
        "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
        "",
        "application/vnd.cncf.helm.config.v1+json",
    ),
    "a signature": (
        images.CONFIG,
        "application/vnd.dev.cosign.simplesigning.v1+json",
        "",
        "application/vnd.dev.cosign.simplesigning.v1+json",
    ),
    "a module": (
        "application/vnd.wasm.config.v0+json",
        "application/wasm",
        "",
        "application/vnd.wasm.config.v0+json",
    ),
    "an SBOM": (
        "application/vnd.oci.empty.v1+json",
        "application/spdx+json",
        "application/vnd.example.sbom",
        "application/vnd.example.sbom",
    ),
    "a folder": (
        "application/vnd.unknown.config.v1+json",
        f"{LAYER}+gzip",
        "",
        "application/vnd.unknown.config.v1+json",
    ),
}


@pytest.mark.parametrize("kind", ARTIFACTS)
def test_an_artifact_is_no_image_and_is_told_by_its_type(
    store: Images, served: Served, server: RecordingServer, kind: str
) -> None:
    config, layer, artifact, told = ARTIFACTS[kind]
    fields = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": artifact,
        "config": served.blob(b"{}", config),
        "layers": [served.blob(os.urandom(50), layer)],
    }
    served.document({key: value for key, value in fields.items() if value}, tag="1")
    error = refusal(store, server)
    assert "is not an image" in error.brief
    assert told in error.details
    assert error.code is Code.UNSUPPORTED
    assert not any("/blobs/" in request.path for request in server.requests)


def test_a_mirror_without_the_best_manifest_gives_the_next_one(
    store: Images, containerd: ContainerdDaemon, served: Served, server: RecordingServer
) -> None:
    """Covers a sparse copy of an index, as on mirrors of a single platform."""
    own = images.host_architecture()
    gone = {"mediaType": MANIFEST, "digest": digest_of(b"gone"), "size": 4, **entry(own)}
    there = served.document(served.manifest("there"), **entry(own))
    served.document(served.index(gone, there), tag="1")
    assert got(store, containerd, f"{server.host}/x:1").config.cmd == ("there",)
