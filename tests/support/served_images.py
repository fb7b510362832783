"""A registry that serves whatever documents a test makes, honest or not."""

from __future__ import annotations

import gzip
import json
import os
from typing import Any

from tests.support import images
from tests.support.images import digest_of
from tests.support.recording_server import Answer, RecordingServer, Request


class Served:
    """Documents and blobs by tag and digest; `with served.server() as server` has its host.

    Every layer is unlike any other test's, so that containerd cannot have it before.
    """

    def __init__(self) -> None:
        self.documents: dict[str, tuple[bytes, str]] = {}
        self.blobs: dict[str, bytes] = {}

    def server(self) -> RecordingServer:
        """A server that is not started yet."""
        return RecordingServer(self._answer)

    def blob(self, body: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        """Keeps a blob and returns its descriptor."""
        self.blobs[digest_of(body)] = body
        return {"mediaType": media_type, "digest": digest_of(body), "size": len(body), **more}

    def document(
        self, fields: dict[str, Any], media_type: str = "", tag: str = "", **more: Any
    ) -> dict[str, Any]:
        """Keeps a document, by a tag too, and returns its descriptor for an index.

        Args:
            fields: the document.
            media_type: Content-Type and type of the descriptor; without, what the document says.
            tag: where given, another name of it.
            more: of the descriptor.
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
        """A manifest with a config and a layer; config is what its config has beside `config`.

        Args:
            cmd: the image's command, for a test to know it by.
            layers: descriptors; without, one layer in gzip.
            content: the only layer's uncompressed tar.
            config: such as architecture.
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
        """An index."""
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
