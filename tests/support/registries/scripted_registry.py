"""A registry of one image that cuts, throttles and lies as a test chooses."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from tests.support.registries.images import Image, digest_of
from tests.support.registries.recording_server import Answer, RecordingServer, Request

Rule = Callable[[Request, Answer], Answer]


class ScriptedRegistry(RecordingServer):
    """A registry of a `with` block: every name and tag is the same image.

    Args:
        image: the image, served with ranges and digests as a good registry does.
        rule: receives each request and the honest answer, and returns the answer to send.
        address: the address to listen on.
        port: 0 takes a free port.
    """

    def __init__(
        self,
        image: Image,
        rule: Rule = lambda _, honest: honest,
        address: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.image = image
        super().__init__(lambda request: rule(request, self._honest(request)), address, port)

    def _honest(self, request: Request) -> Answer:
        path = request.path.partition("?")[0]
        if "/manifests/" in path:
            headers = {
                "Content-Type": self.image.media_type,
                "Docker-Content-Digest": digest_of(self.image.body),
            }
            return Answer(200, headers, self.image.body)
        body = self.image.blobs.get(path.rpartition("/")[2])
        return Answer() if body is None else ranged(request.headers, body)

    def blobs(self, digest: str) -> list[Request]:
        """Lists the requests for one blob."""
        return [
            request
            for request in self.requests
            if request.path.partition("?")[0].endswith(f"/blobs/{digest}")
        ]

    def manifests(self, method: str = "GET") -> list[Request]:
        """Lists the requests for manifests."""
        return [
            request
            for request in self.requests
            if "/manifests/" in request.path and request.method == method
        ]


def ranged(headers: Mapping[str, str], body: bytes) -> Answer:
    """Returns a body, or the part from the first byte of a Range header on."""
    found = re.fullmatch(r"bytes=(\d+)-", headers.get("range", ""))
    if found is None:
        return Answer(200, {}, body)
    start = int(found[1])
    if start >= len(body):
        return Answer(416, {"Content-Range": f"bytes */{len(body)}"})
    span = f"bytes {start}-{len(body) - 1}/{len(body)}"
    return Answer(206, {"Content-Range": span}, body[start:])
