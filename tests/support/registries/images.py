"""Images built in the test without a network: busybox and a few files, pushed over plain HTTP."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import os
import ssl
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.waiting import slowed

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
_BLOCK = 128 * 1024
_APPLETS = [
    "sh",
    "ash",
    "awk",
    "cat",
    "cut",
    "date",
    "dd",
    "df",
    "echo",
    "env",
    "false",
    "free",
    "grep",
    "head",
    "hostname",
    "httpd",
    "id",
    "kill",
    "ls",
    "mkdir",
    "mount",
    "nc",
    "printf",
    "ps",
    "pwd",
    "rm",
    "sed",
    "seq",
    "sleep",
    "sort",
    "stat",
    "stty",
    "tail",
    "test",
    "touch",
    "tr",
    "true",
    "wc",
    "wget",
    "yes",
]
BUSYBOX = Path("/bin/busybox")
_MACHINE_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def digest_of(body: bytes) -> str:
    """Returns the sha256 of a blob in the form of a descriptor."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def host_architecture() -> str:
    """Returns the machine's architecture in OCI's terms."""
    machine = os.uname().machine
    return _MACHINE_ARCHITECTURES.get(machine, machine)


@dataclass(slots=True)
class Image:
    """A built image: the manifest or index, and all blobs by digest."""

    body: bytes
    media_type: str
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The digest of the manifest or index."""
        return digest_of(self.body)


Entry = bytes | str | tuple[str, int] | None
"""A file's content, a link's target, (content, mode) or, for None, a directory."""


def layer(entries: Mapping[str, Entry]) -> bytes:
    """Builds an uncompressed layer. Keys are paths without a leading slash."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path, entry in entries.items():
            info = tarfile.TarInfo(path)
            if entry is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            elif isinstance(entry, str):
                info.type, info.linkname = tarfile.SYMTYPE, entry
                tar.addfile(info)
            else:
                content, mode = (
                    (entry[0].encode(), entry[1])
                    if isinstance(entry, tuple)
                    else (
                        entry,
                        0o755,
                    )
                )
                info.size, info.mode = len(content), mode
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def busybox_layer(extra: Mapping[str, Entry] | None = None) -> bytes:
    """Builds a layer with busybox and its applets, /etc/passwd with user `bob` (1000), and /tmp."""
    entries: dict[str, Entry] = {"bin": None, "etc": None, "tmp": None, "root": None, "home": None}
    entries["bin/busybox"] = BUSYBOX.read_bytes()
    for applet in _APPLETS:
        entries[f"bin/{applet}"] = "busybox"
    entries["etc/passwd"] = (
        "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000:Bob:/home/bob:/bin/sh\n",
        0o644,
    )
    entries["etc/group"] = ("root:x:0:\nadm:x:4:bob\nbob:x:1000:\n", 0o644)
    entries.update(extra or {})
    return layer(entries)


def zstd(body: bytes) -> bytes:
    """Packs bytes into a zstd frame of raw blocks, without a library that compresses."""
    frame = bytearray(b"\x28\xb5\x2f\xfd\0\x38")
    for begin in range(0, len(body), _BLOCK):
        block = body[begin : begin + _BLOCK]
        last = begin + _BLOCK >= len(body)
        frame += (int(last) | len(block) << 3).to_bytes(3, "little") + block
    return bytes(frame)


def build(
    layers: Sequence[bytes],
    config: Mapping[str, Any] | None = None,
    architecture: str = "",
    compression: str = "gzip",
) -> Image:
    """Builds an image of uncompressed layers; config has the keys of an OCI image's `config`."""
    blobs: dict[str, bytes] = {}
    descriptors = []
    for body in layers:
        gzipped = compression == "gzip"
        packed = gzip.compress(body, compresslevel=1, mtime=0) if gzipped else zstd(body)
        blobs[digest_of(packed)] = packed
        kind = f"{LAYER}+{compression}"
        descriptors.append({"mediaType": kind, "digest": digest_of(packed), "size": len(packed)})
    document = json.dumps(
        {
            "architecture": architecture or host_architecture(),
            "os": "linux",
            "config": dict(config or {}),
            "rootfs": {"type": "layers", "diff_ids": [digest_of(body) for body in layers]},
        }
    ).encode()
    blobs[digest_of(document)] = document
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": CONFIG,
            "digest": digest_of(document),
            "size": len(document),
        },
        "layers": descriptors,
    }
    return Image(json.dumps(manifest).encode(), MANIFEST, blobs)


def index(images: Mapping[str, Image]) -> Image:
    """Builds an index of images by architecture."""
    whole = Image(b"", INDEX)
    entries = []
    for architecture, image in images.items():
        whole.blobs.update(image.blobs)
        whole.manifests[image.digest] = image.body
        entries.append(
            {
                "mediaType": MANIFEST,
                "digest": image.digest,
                "size": len(image.body),
                "platform": {"os": "linux", "architecture": architecture},
            }
        )
    whole.body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
    return whole


def push(
    host: str,
    repository: str,
    tag: str,
    image: Image,
    authorization: str = "",
    tls: ssl.SSLContext | None = None,
) -> str:
    """Pushes, over plain HTTP without `tls`, and returns the reference `host/repository:tag`."""
    connection = (
        http.client.HTTPSConnection(host, timeout=slowed(30), context=tls)
        if tls
        else http.client.HTTPConnection(host, timeout=slowed(30))
    )
    headers = {"Authorization": authorization} if authorization else {}
    try:
        for digest, body in image.blobs.items():
            _push_blob(connection, repository, digest, body, headers)
        documents = [(digest, body, MANIFEST) for digest, body in image.manifests.items()]
        for name, body, media_type in [*documents, (tag, image.body, image.media_type)]:
            status, answer, _ = _request(
                connection,
                "PUT",
                f"/v2/{repository}/manifests/{name}",
                body,
                {**headers, "Content-Type": media_type},
            )
            assert status == http.client.CREATED, (status, answer)
    finally:
        connection.close()
    return f"{host}/{repository}:{tag}"


def _push_blob(
    connection: http.client.HTTPConnection,
    repository: str,
    digest: str,
    body: bytes,
    headers: dict[str, str],
) -> None:
    status, answer, location = _request(
        connection, "POST", f"/v2/{repository}/blobs/uploads/", b"", headers
    )
    assert status == http.client.ACCEPTED, (status, answer)
    path = location.partition("//")[2].partition("/")[2] if "//" in location else location[1:]
    separator = "&" if "?" in path else "?"
    status, answer, _ = _request(
        connection,
        "PUT",
        f"/{path}{separator}digest={digest}",
        body,
        {**headers, "Content-Type": "application/octet-stream"},
    )
    assert status == http.client.CREATED, (status, answer)


def _request(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes,
    headers: dict[str, str],
) -> tuple[int, bytes, str]:
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    return response.status, response.read(), response.headers.get("Location", "")


FOREIGN = "riscv64" if host_architecture() != "riscv64" else "s390x"
"""An architecture that this machine is not."""
