"""Image archives as `docker save`, skopeo and OCI's layout write them, built in the test."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.registries import images
from tests.support.registries.images import (
    CONFIG,
    LAYER,
    MANIFEST,
    Image,
    digest_of,
    host_architecture,
)

File = tuple[str, bytes]
FULL = "io.containerd.image.name"
REF = "org.opencontainers.image.ref.name"


def tar_of(files: Iterable[File], format: int = tarfile.PAX_FORMAT) -> bytes:
    """Builds a tar of plain files; a name may occur twice."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for name, body in files:
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return out.getvalue()


def docker_files(
    layers: Sequence[bytes],
    tags: Sequence[str] = ("demo:1",),
    config: Mapping[str, Any] | None = None,
    architecture: str = "",
) -> list[File]:
    """Returns the files of `docker save` for one image; layers are uncompressed."""
    document = json.dumps(
        {
            "architecture": architecture or host_architecture(),
            "os": "linux",
            "config": dict(config or {}),
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        }
    ).encode()
    name = f"{digest_of(document)[7:]}.json"
    places = [f"{digest_of(layer)[7:]}/layer.tar" for layer in layers]
    manifest = [{"Config": name, "RepoTags": list(tags), "Layers": places}]
    return [
        *zip(places, layers, strict=True),
        (name, document),
        ("manifest.json", json.dumps(manifest).encode()),
    ]


def layout_files(images: Mapping[str, Image]) -> list[File]:
    """Returns the files of OCI's layout; keys are the names of the images, empty for none."""
    files: list[File] = [("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')]
    entries = []
    for name, image in images.items():
        blobs = {**image.blobs, **image.manifests, image.digest: image.body}
        files += [(f"blobs/sha256/{digest[7:]}", body) for digest, body in blobs.items()]
        notes = {"org.opencontainers.image.ref.name": name} if name else {}
        entries.append(
            {
                "mediaType": image.media_type,
                "digest": image.digest,
                "size": len(image.body),
                "annotations": notes,
            }
        )
    index = {"schemaVersion": 2, "manifests": entries}
    return [*files, ("index.json", json.dumps(index).encode())]


def new_docker_files(layers: Sequence[bytes], name: str, cmd: str = "x") -> list[File]:
    """Returns the files of `docker save` since 25.0: OCI's layout and docker's manifest."""
    (*_, (_, config), _) = docker_files(layers, config={"Cmd": [cmd]})
    bodies = {digest_of(body): body for body in (config, *layers)}
    described = [
        {"mediaType": LAYER, "digest": digest_of(body), "size": len(body)} for body in layers
    ]
    document = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": digest_of(config), "size": len(config)},
            "layers": described,
        }
    ).encode()
    image = Image(document, MANIFEST, bodies)
    listed = {
        "Config": f"blobs/sha256/{digest_of(config)[7:]}",
        "RepoTags": [name],
        "Layers": [f"blobs/sha256/{digest_of(body)[7:]}" for body in layers],
        "LayerSources": {one["digest"]: one for one in described},
    }
    return [*layout_files({name: image}), ("manifest.json", json.dumps([listed]).encode())]


def merged(*archives: Iterable[File]) -> list[File]:
    """Merges several docker archives into one with one manifest.json."""
    files: dict[str, bytes] = {}
    listed: list[Any] = []
    for archive in archives:
        for name, body in archive:
            if name == "manifest.json":
                listed += json.loads(body)
            else:
                files[name] = body
    return [*files.items(), ("manifest.json", json.dumps(listed).encode())]


def skopeo_directory(image: Image) -> list[File]:
    """Returns the files of `skopeo copy … dir:DIR` and `podman save --format docker-dir`."""
    blobs = [(digest[7:], body) for digest, body in image.blobs.items()]
    instances = [(f"{one[7:]}.manifest.json", body) for one, body in image.manifests.items()]
    version = ("version", b"Directory Transport Version: 1.1\n")
    return [*blobs, *instances, version, ("manifest.json", image.body)]


def write_directory(root: Path, files: Iterable[File]) -> None:
    """Writes the files into a directory."""
    for name, body in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)


def with_index(files: list[File], body: bytes) -> list[File]:
    """Builds the same archive with another index.json."""
    return [*((name, old) for name, old in files if name != "index.json"), ("index.json", body)]


def two_layers(text: str) -> list[bytes]:
    """Builds layers that no other test has."""
    return [images.layer({"one": text.encode()}), images.layer({"two": text.encode() * 1000})]
