"""The check of a tag: little time and few threads, also where registries are silent."""

from __future__ import annotations

import asyncio
import socket

import pytest

from actors.images.tag_check import RegistryAccess, TagCheck
from proto.errors import Code, DriverError
from tests.support.registries.recording_server import Answer, RecordingServer

NO_ACCESS = RegistryAccess()
DIGEST = f"sha256:{'a' * 64}"


async def test_eight_silent_registries_are_the_most_that_checks_wait_for() -> None:
    check = TagCheck({})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        image = f"127.0.0.1:{silent.getsockname()[1]}/x:latest"
        waiting = [asyncio.create_task(check.digest(image, NO_ACCESS)) for _ in range(8)]
        await asyncio.sleep(0)
        assert await check.digest("127.0.0.1:1/x:latest", NO_ACCESS) is None
        assert await asyncio.gather(*waiting) == [None] * 8


async def test_the_digest_of_a_head_and_only_a_digest_is_returned() -> None:
    answers = [
        Answer(200, {"Docker-Content-Digest": DIGEST}),
        Answer(200, {"Docker-Content-Digest": "sha256:abc"}),
        Answer(200),
        Answer(405),
    ]
    with RecordingServer(lambda _: answers[len(server.requests) - 1]) as server:
        check = TagCheck({})
        got = [await check.digest(f"{server.host}/x:latest", NO_ACCESS) for _ in answers]
    assert got == [DIGEST, "", "", ""]
    assert {request.method for request in server.requests} == {"HEAD"}


async def test_a_registry_that_is_away_is_an_error_to_retry() -> None:
    with pytest.raises(DriverError, match="cannot be read") as caught:
        await TagCheck({}).digest("127.0.0.1:1/x:latest", NO_ACCESS)
    assert caught.value.recoverable
    assert caught.value.code is Code.UNAVAILABLE
