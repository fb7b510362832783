"""Manifests and configs of strangers: read, or refused in words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerd import images
from proto import frames
from proto.errors import Code, DriverError

DIGEST = "sha256:" + "0" * 64


def config(**run: Any) -> bytes:
    return json.dumps({"config": run, "rootfs": {"diff_ids": []}}).encode()


@pytest.mark.parametrize("key", ["Env", "Cmd", "Entrypoint", "User", "WorkingDir", "StopSignal"])
@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_text_that_no_wire_carries_makes_the_image_damaged(key: str, text: str) -> None:
    value = [text] if key in {"Env", "Cmd", "Entrypoint"} else text
    with pytest.raises(DriverError, match="has a NUL byte, or is no Unicode") as caught:
        images.parse_config(config(**{key: value}), "demo")
    assert caught.value.code is Code.CORRUPT


def test_more_layers_than_any_image_has_are_refused() -> None:
    layer = {"digest": DIGEST, "size": 1}
    body = json.dumps({"config": layer, "layers": [layer] * 10_000}).encode()
    with pytest.raises(DriverError, match="is damaged: its manifest has no config or too many"):
        images.parse_manifest(body, "demo")


def test_platforms_in_no_language_are_told_all_the_same() -> None:
    """The sentence has to pass from the puller to the plugin."""
    entry = {"digest": DIGEST, "size": 1, "platform": {"os": "linux", "architecture": "\ud800"}}
    with pytest.raises(DriverError, match="has nothing for linux/") as caught:
        images.choose_manifest(json.dumps({"manifests": [entry]}).encode(), "demo")
    (frame,) = frames.Decoder().feed(frames.encode(caught.value.to_wire()))
    assert frame["details"] == "it has linux/?"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
_KEYS = st.sampled_from(
    ["config", "layers", "manifests", "rootfs", "diff_ids", "digest", "size", "platform", "Env"]
)


@given(st.binary() | st.dictionaries(_KEYS, _JSON | st.dictionaries(_KEYS, _JSON)))
def test_any_document_is_an_image_or_a_refusal(document: Any) -> None:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    for read in (images.parse_manifest, images.parse_config, images.choose_manifest):
        try:
            read(body, "demo")
        except DriverError as error:
            frames.encode(error.to_wire())
