"""Tests of images of many layers: each starts, with the users and groups of the lowest layer."""

from __future__ import annotations

import pytest

from tests.support.plugin.driver import Driver, launched
from tests.support.registries import images
from tests.support.registries.registry import Registry

pytestmark = pytest.mark.containerd

# At 53 the mount options outgrow one page; at the others the page ends elsewhere in a path.
COUNTS = (53, 100, 127, 200)
LOWEST = images.busybox_layer(
    {
        "etc/passwd": ("root:x:0:0::/root:/bin/sh\nbob:x:1000:4321::/home/bob:\n", 0o644),
        "etc/group": ("root:x:0:\nowners:x:4321:\nadm:x:44:bob\nlow:x:55:\n", 0o644),
    }
)


@pytest.fixture(scope="module")
def layers() -> list[bytes]:
    """Returns the layers of the largest image, whose lower part is each other image."""
    return [LOWEST, *(images.layer({f"layer{number}": b""}) for number in range(1, max(COUNTS)))]


async def test_images_of_many_layers_start_with_the_users_of_their_lowest_layer(
    driver: Driver, registry: Registry, layers: list[bytes]
) -> None:
    async with launched(driver):
        for count in COUNTS:
            built = images.build(layers[:count], {"Cmd": ["/bin/id"]})
            image = images.push(registry.host, "many-layers", str(count), built)
            script = f"id -u; id -g; id -G; test -e /layer{count - 1} && echo top"
            assert await driver.output(image, script) == "0\n0\n0\ntop\n", count
            job = driver.task(user="bob")
            said = await driver.output(image, script, job, group_add=["low"])
            assert said == "1000\n4321\n4321 44 55\ntop\n", count
