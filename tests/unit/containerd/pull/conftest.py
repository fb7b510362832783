"""The end of a test's archives."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.registries.opened_archives import close_all


@pytest.fixture(autouse=True)
def close_archives() -> Iterator[None]:
    """Closes every archive of a test."""
    yield
    close_all()
