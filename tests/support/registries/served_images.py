"""A registry that serves the documents of a test, valid or not."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Mapping
from typing import Any

from tests.support.registries import images
from tests.support.registries.images import digest_of
from tests.support.registries.recording_server import Answer, RecordingServer, Request


class Served:
    """Documents and blobs by tag and digest; `with served.server() as server` has the host.

    Every layer differs from the layers of other tests: containerd cannot have the layer yet.
    """

    def __init__(self) -> None:
        self.documents: dict[str, tuple[bytes, str]] = {}
        self.blobs: dict[str, bytes] = {}

    def server(self) -> RecordingServer:
        """Returns a server that is not started yet."""
        return RecordingServer(self._answer)

    def blob(self, body: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        """Stores a blob and returns its descriptor."""
        self.blobs[digest_of(body)] = body
        return {"mediaType": media_type, "digest": digest_of(body), "size": len(body), **more}

    def document(
        self, fields: dict[str, Any], media_type: str = "", tag: str = "", **more: Any
    ) -> dict[str, Any]:
        """Stores a document, also by a tag, and returns its descriptor for an index.

        Args:
            fields: the document.
            media_type: Content-Type and the descriptor's type; by default the document's own.
            tag: another name of the document.
            more: further fields of the descriptor.
        """
        body = json.dumps(fields).encode()
        media_type = media_type or str(fields.get("mediaType", ""))
        self.documents[digest_of(body)] = (body, media_type)
        if tag:
            self.documents[tag] = (body, media_type)
        found = {"mediaType": media_type, "digest": digest_of(body), "size": len(body), **more}
        return {key: value for key, value in found.items() if value is not None}

    def manifest(
        self,
        cmd: str,
        layers: list[dict[str, Any]] | None = None,
        content: bytes = b"",
        **config: Any,
    ) -> dict[str, Any]:
        """Stores a manifest with a config and a layer, and returns the descriptor.

        Args:
            cmd: the image's command, by which a test recognises the image.
            layers: descriptors; by default one layer in gzip.
            content: the uncompressed tar of the only layer.
            config: fields of the config beside `config`, such as architecture.
        """
        content = content or images.layer({"content": os.urandom(2000)})
        packed = gzip.compress(content, mtime=0)
        document = {
            "os": "linux",
            "architecture": images.host_architecture(),
            "config": {"Cmd": [cmd]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(content)]},
            **config,
        }
        described = self.blob(json.dumps(document).encode(), images.CONFIG)
        own = [self.blob(packed, f"{images.LAYER}+gzip")]
        return {
            "schemaVersion": 2,
            "mediaType": images.MANIFEST,
            "config": described,
            "layers": own if layers is None else layers,
        }

    def index(self, *entries: dict[str, Any]) -> dict[str, Any]:
        """Stores an index and returns its descriptor."""
        return {"schemaVersion": 2, "mediaType": images.INDEX, "manifests": list(entries)}

    def _answer(self, request: Request) -> Answer:
        kind, _, name = request.path.partition("?")[0].removeprefix("/v2/x/").partition("/")
        if kind == "manifests" and name in self.documents:
            body, media_type = self.documents[name]
            headers = {"Content-Type": media_type} if media_type else {}
            return Answer(status=200, headers=headers, body=body)
        if kind == "blobs" and name in self.blobs:
            return Answer(status=200, body=self.blobs[name])
        return Answer(status=404)


def entry(
    architecture: str,
    variant: str = "",
    system: str = "linux",
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Describes the platform of an index's entry."""
    platform = {"os": system, "architecture": architecture, "variant": variant}
    return {"platform": {**platform, **(more or {})}}
