"""A registry that serves the documents of a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.registries.recording_server import RecordingServer
from tests.support.registries.served_images import Served


@pytest.fixture
def served() -> Served:
    return Served()


@pytest.fixture
def server(served: Served) -> Iterator[RecordingServer]:
    with served.server() as running:
        yield running
