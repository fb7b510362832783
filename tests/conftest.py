"""Fixtures of all tiers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.containerd_daemon import ContainerdDaemon
from tests.support.needs import need_containerd


@pytest.fixture(scope="session")
def containerd() -> Iterator[ContainerdDaemon]:
    """A real containerd for the whole session."""
    need_containerd()
    with ContainerdDaemon() as daemon:
        yield daemon
