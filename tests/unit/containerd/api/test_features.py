"""Features of a containerd, by version."""

from __future__ import annotations

import pytest

from containerd.api import features
from proto.errors import Code, DriverError


@pytest.mark.parametrize(
    ("version", "able"),
    [
        ("1.4.13~ds1", False),
        ("v1.5.0", True),
        ("1.6.20~ds1", True),
        ("2.1.9+unknown", True),
        ("1.10.0", True),
        ("some build", True),
    ],
)
def test_a_version_tells_what_it_can_do(version: str, able: bool) -> None:
    assert features.of(version) == {features.ZSTD: able}
    assert (features.lacking(version) == "") is able
    if able:
        features.require(features.ZSTD, version, "the image x")
        return
    with pytest.raises(DriverError, match="the image x needs a containerd that can") as caught:
        features.require(features.ZSTD, version, "the image x")
    assert caught.value.code is Code.UNSUPPORTED
