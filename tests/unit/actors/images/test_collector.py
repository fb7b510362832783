"""Each decision about an image is a line of the log with the reason."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from actors.images.collector import PULLED, UNUSED_SINCE, ImageCollector
from containerd.api.client import Containerd


class Images:
    """containerd's images, in memory."""

    def __init__(self, *names: str) -> None:
        self.labels: dict[str, dict[str, str]] = {name: {PULLED: "true"} for name in names}

    async def list(self, *_: str) -> tuple[Any, ...]:
        return tuple([await self.get(name) for name in self.labels])

    async def get(self, name: str) -> Any:
        if name not in self.labels:
            return None
        return SimpleNamespace(name=name, labels=dict(self.labels[name]), digest="sha256:0")

    async def set_label(self, name: str, key: str, value: str) -> None:
        self.labels[name].pop(key, None)
        if value:
            self.labels[name][key] = value

    async def delete(self, name: str) -> None:
        del self.labels[name]


class Containers:
    """containerd's containers: the names of their images."""

    def __init__(self) -> None:
        self.images: list[str] = []

    async def list(self) -> tuple[Any, ...]:
        return tuple(SimpleNamespace(image=image) for image in self.images)


async def test_an_image_waits_for_the_delay_and_each_decision_has_a_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="actors.images.collector")
    images, containers = Images("a", "b"), Containers()
    client = cast("Containerd", SimpleNamespace(images=images, containers=containers))
    now = 100.0
    collector = ImageCollector(client, delay_s=60, now=lambda: now, boot="boot")
    assert await collector.due({"b"}) == ()
    assert images.labels == {
        "a": {PULLED: "true", UNUSED_SINCE: "boot/100"},
        "b": {PULLED: "true"},
    }
    now = 160.0
    assert await collector.due(()) == ("a",)
    containers.images = ["b"]
    assert await collector.due(()) == ("a",)
    assert UNUSED_SINCE not in images.labels["b"]
    await collector.remove_quietly("a")
    await collector.remove_quietly("b")
    assert set(images.labels) == {"b"}
    lines = [(r.getMessage(), vars(r)["image"], vars(r).get("reason")) for r in caplog.records]
    assert lines == [
        ("image kept", "a", "unused since this sweep"),
        ("image to be removed", "a", "unused for the delay"),
        ("image kept", "b", "unused since this sweep"),
        ("image to be removed", "a", "unused for the delay"),
        ("image kept", "b", "in use again"),
        ("image removed: no task uses the image", "a", None),
        ("image kept", "b", "in use again, or gone"),
    ]
