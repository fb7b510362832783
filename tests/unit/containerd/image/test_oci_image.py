"""Manifests and configs from strangers: read, or refused with a sentence."""

from __future__ import annotations

import asyncio
import hashlib
import json
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerd.api.records import ImageRecord
from containerd.image import config as image_config
from containerd.image import layer_types, manifests, oci_image
from containerd.image.manifests import Index, Manifest
from proto import frames
from proto.errors import Code, DriverError

DIGEST = "sha256:" + "0" * 64
BLOB = {"digest": DIGEST, "size": 1}
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_INDEX, OCI_MANIFEST = manifests.OCI_INDEX, manifests.OCI_MANIFEST
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def config(**run: Any) -> bytes:
    return json.dumps({"config": run, "rootfs": {"diff_ids": []}}).encode()


def document(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


@pytest.mark.parametrize("key", ["Env", "Cmd", "Entrypoint", "User", "WorkingDir", "StopSignal"])
@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_text_that_no_wire_carries_makes_the_image_damaged(key: str, text: str) -> None:
    value = [text] if key in {"Env", "Cmd", "Entrypoint"} else text
    with pytest.raises(DriverError, match="has a NUL byte, or is not Unicode") as caught:
        image_config.parse_config(config(**{key: value}), "demo")
    assert caught.value.code is Code.CORRUPT


@pytest.mark.parametrize(("key", "others"), [("layers", {"config": BLOB}), ("manifests", {})])
def test_more_entries_than_any_image_has_are_refused(key: str, others: dict[str, Any]) -> None:
    body = document(**{key: [BLOB] * 10_000}, **others)
    with pytest.raises(DriverError, match=f"is damaged: too many {key}"):
        manifests.read(body, "", "demo")


@pytest.mark.parametrize(
    "stated",
    [
        "",
        "application/octet-stream",
        "text/plain; charset=utf-8",
        "application/json",
        "APPLICATION/VND.OCI.IMAGE.MANIFEST.V1+JSON",
        f"{OCI_MANIFEST}; charset=utf-8",
        DOCKER_MANIFEST,
        "text/html",
        "nonsense",
    ],
)
@pytest.mark.parametrize("said", ["", OCI_MANIFEST, DOCKER_MANIFEST, OCI_MANIFEST.upper()])
def test_the_document_tells_of_which_kind_it_is(stated: str, said: str) -> None:
    body = document(schemaVersion=2, mediaType=said, config=BLOB, layers=[BLOB])
    read = manifests.read(body, stated, "demo")
    assert isinstance(read, Manifest)
    assert read.media_type in manifests.MANIFEST_TYPES
    if said:
        assert read.media_type == said.lower()


@pytest.mark.parametrize("stated", ["", "text/plain", OCI_INDEX, DOCKER_LIST, OCI_INDEX.upper()])
def test_an_index_is_known_by_its_manifests(stated: str) -> None:
    read = manifests.read(document(manifests=[BLOB]), stated, "demo")
    assert isinstance(read, Index)
    assert read.media_type == (DOCKER_LIST if stated == DOCKER_LIST else OCI_INDEX)


AMBIGUOUS: dict[str, tuple[str, dict[str, Any]]] = {
    "layers and manifests": ("", {"config": BLOB, "layers": [BLOB], "manifests": [BLOB]}),
    "manifests and a config": (OCI_INDEX, {"config": BLOB, "manifests": [BLOB]}),
    "manifests and no layers": (OCI_INDEX, {"layers": [], "manifests": [BLOB]}),
    "a null": (OCI_MANIFEST, {"config": BLOB, "layers": [BLOB], "manifests": None}),
    "capital manifests": ("", {"config": BLOB, "layers": [BLOB], "Manifests": [BLOB]}),
    "capital layers": ("", {"config": BLOB, "LAYERS": [BLOB]}),
    "a manifest served as an index": (OCI_INDEX, {"config": BLOB, "layers": [BLOB]}),
    "an index served as a manifest": (DOCKER_MANIFEST, {"manifests": [BLOB]}),
    "a manifest that calls itself an index": (
        "",
        {"mediaType": DOCKER_LIST, "config": BLOB, "layers": [BLOB]},
    ),
    "an index that calls itself a manifest": (
        OCI_INDEX,
        {"mediaType": OCI_MANIFEST.upper(), "manifests": [BLOB]},
    ),
}


@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_a_document_of_two_kinds_is_ambiguous(kind: str) -> None:
    stated, fields = AMBIGUOUS[kind]
    with pytest.raises(DriverError, match="image demo is ambiguous") as caught:
        manifests.read(document(schemaVersion=2, **fields), stated, "demo")
    assert caught.value.code is Code.CORRUPT
    assert not caught.value.recoverable


@pytest.mark.parametrize(
    ("stated", "fields"),
    [
        ("", {"schemaVersion": 1, "config": {}}),
        ("", {"fsLayers": [{"blobSum": DIGEST}]}),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", {"schemaVersion": 1}),
        ("", {"mediaType": "application/vnd.docker.distribution.manifest.v1+json"}),
    ],
)
def test_schema_1_is_refused_by_its_own_name(stated: str, fields: dict[str, Any]) -> None:
    with pytest.raises(DriverError, match="a manifest of the old schema 1") as caught:
        manifests.read(document(**fields), stated, "demo")
    assert caught.value.code is Code.UNSUPPORTED


@pytest.mark.parametrize(
    "body",
    [
        b'{"config": {}, "layers": [], "layers": []}',
        b'{"manifests": [], "mediaType": "a", "mediaType": "b"}',
        b'{"manifests": [{"digest": "a", "digest": "b"}]}',
    ],
)
def test_a_key_that_stands_twice_is_ambiguous(body: bytes) -> None:
    with pytest.raises(DriverError, match=r"is ambiguous: the key '\w+' is twice"):
        manifests.read(body, "", "demo")


def test_a_document_is_utf_8_and_nothing_else() -> None:
    """Refuses other encodings: Go's reader takes only UTF-8, and Python's reader would guess."""
    body = document(manifests=[BLOB]).decode()
    for encoding in ("utf-16", "utf-32", "utf-8-sig"):
        with pytest.raises(DriverError, match="is damaged: not JSON"):
            manifests.read(body.encode(encoding), "", "demo")


@pytest.mark.parametrize(
    ("media_type", "compression", "foreign", "encrypted"),
    [
        ("application/vnd.oci.image.layer.v1.tar", "", False, False),
        ("application/vnd.oci.image.layer.v1.tar+gzip", "gzip", False, False),
        ("application/vnd.oci.image.layer.v1.tar+zstd", "zstd", False, False),
        ("application/vnd.docker.image.rootfs.diff.tar", "", False, False),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", "gzip", False, False),
        ("application/vnd.docker.image.rootfs.diff.tar+gzip", "gzip", False, False),
        ("application/vnd.docker.image.rootfs.diff.tar.zstd", "zstd", False, False),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "gzip", True, False),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "gzip", True, False),
        ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "gzip", False, True),
        ("application/vnd.oci.image.layer.v1.tar+encrypted", "", False, True),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip+encrypted", "gzip", False, True),
        ("application/vnd.oci.image.layer.v1.tar+xz", "xz", False, False),
    ],
)
def test_a_layers_type_is_read(
    media_type: str, compression: str, foreign: bool, encrypted: bool
) -> None:
    expected = layer_types.LayerType(compression=compression, foreign=foreign, encrypted=encrypted)
    assert layer_types.layer_type(media_type) == expected


HELM = "application/vnd.cncf.helm.config.v1+json"
COSIGN = "application/vnd.dev.cosign.simplesigning.v1+json"
WASM = "application/vnd.wasm.content.layer.v1+wasm"
EMPTY = "application/vnd.oci.empty.v1+json"
SBOM = "application/spdx+json"
TAR = manifests.OCI_LAYER


@pytest.mark.parametrize(
    ("config_type", "layer_types", "artifact", "told"),
    [
        (HELM, ["application/vnd.cncf.helm.chart.content.v1.tar+gzip"], "", HELM),
        (manifests.OCI_CONFIG, [COSIGN], "", COSIGN),
        ("application/vnd.wasm.config.v0+json", [WASM], "", "application/vnd.wasm.config.v0+json"),
        (EMPTY, [EMPTY], SBOM, SBOM),
        (EMPTY, [SBOM], "", SBOM),
        ("application/vnd.unknown.config.v1+json", [TAR], "", "application/vnd.unknown.config"),
        (manifests.OCI_CONFIG, ["application/vnd.in-toto+json"], "", "in-toto"),
        (manifests.OCI_CONFIG, [f"{TAR}+gzip"], "", ""),
        (manifests.OCI_CONFIG, [f"{TAR}+gzip"], "application/x", ""),
        ("application/octet-stream", [TAR], "", ""),
        ("application/vnd.docker.container.image.v1+json", [TAR], "", ""),
        (manifests.OCI_CONFIG, [], "", ""),
        (manifests.OCI_CONFIG, ["application/vnd.erofs.layer.v1"], "", ""),
        (manifests.OCI_CONFIG, ["application/vnd.stacker.image.layer.squashfs+zstd"], "", ""),
    ],
)
def test_an_artifact_is_told_from_an_image(
    config_type: str, layer_types: list[str], artifact: str, told: str
) -> None:
    body = document(
        config={**BLOB, "mediaType": config_type},
        layers=[{**BLOB, "mediaType": kind} for kind in layer_types],
        artifactType=artifact,
    )
    manifest = manifests.read(body, "", "demo")
    assert isinstance(manifest, Manifest)
    found = manifests.artifact_type(manifest)
    assert (told in found) if told else (found == "")


def test_the_artifact_manifest_that_never_became_a_standard_is_no_image() -> None:
    kind = "application/vnd.oci.artifact.manifest.v1+json"
    body = document(mediaType=kind, artifactType="application/x-sbom", blobs=[BLOB])
    with pytest.raises(DriverError, match="demo is not an image: an artifact") as caught:
        manifests.read(body, kind, "demo")
    assert "application/x-sbom" in caught.value.details


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
_KEYS = st.sampled_from(
    [
        *("config", "layers", "manifests", "rootfs", "diff_ids", "digest", "size", "platform"),
        *("Env", "os", "architecture", "variant", "annotations", "mediaType", "artifactType"),
    ]
)


@given(st.binary() | st.dictionaries(_KEYS, _JSON | st.dictionaries(_KEYS, _JSON)))
def test_any_document_is_an_image_or_a_refusal(document: Any) -> None:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    for read in (partial(manifests.read, body, "", "demo"), partial(_config, body)):
        try:
            read()
        except DriverError as error:
            frames.encode(error.to_wire())


def _config(body: bytes) -> object:
    return image_config.parse_config(body, "demo")


class _Content:
    """A content store whose blobs need no wait."""

    def __init__(self, *blobs: bytes) -> None:
        self.blobs = {f"sha256:{hashlib.sha256(blob).hexdigest()}": blob for blob in blobs}

    async def read(self, digest: str, limit_bytes: int) -> bytes:
        assert len(self.blobs[digest]) <= limit_bytes
        return self.blobs[digest]


async def test_w4_a_large_config_keeps_nobody_waiting() -> None:
    """Checks that the event loop runs during the parsing."""
    big = config(Env=[f"A{number}=x" for number in range(100_000)])
    blobs = _Content(big)
    [digest] = blobs.blobs
    manifest = document(
        schemaVersion=2,
        mediaType=OCI_MANIFEST,
        config={"mediaType": CONFIG, "digest": digest, "size": len(big)},
        layers=[{"mediaType": LAYER, **BLOB}],
    )
    content = _Content(big, manifest)
    record = ImageRecord(
        name="demo",
        digest=f"sha256:{hashlib.sha256(manifest).hexdigest()}",
        media_type=OCI_MANIFEST,
        size=len(manifest),
    )

    loading = asyncio.create_task(oci_image.load_image(content, record))  # type: ignore[arg-type]
    rounds = 0
    while not loading.done():
        rounds += 1
        await asyncio.sleep(0)
    assert len(loading.result().config.env) == 100_000
    assert rounds > 10
