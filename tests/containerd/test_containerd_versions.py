"""What depends on containerd's version: the same tests hold on each that `./dev matrix` runs."""

from __future__ import annotations

import asyncio

import pytest

from containerd import abilities
from proto.errors import DriverError
from tests.support import images
from tests.support.containerd_daemon import ContainerdDaemon
from tests.support.driver import Driver, launched
from tests.support.registry import Registry

pytestmark = pytest.mark.containerd


def test_an_image_with_zstd_layers_runs_or_is_refused_before_they_are_fetched(
    driver: Driver, containerd: ContainerdDaemon, registry: Registry
) -> None:
    image = images.build([images.busybox_layer({"mark": ("z", 0o644)})], compression="zstd")
    [layer] = [blob for blob in image.blobs if image.blobs[blob][:2] == b"\x28\xb5"]
    reference = images.push(registry.host, "zstd", "1", image)
    able = abilities.of(containerd.version)[abilities.ZSTD]

    async def life() -> None:
        async with launched(driver) as session:
            look = await session.fingerprint()
            assert look.attributes["driver.containerd.zstd"] is able
            if able:
                assert await driver.output(reference, "cat /mark") == "z"
                return
            with pytest.raises(DriverError, match=r"zstd: this node has .*first that can") as said:
                await driver.start(driver.task(), reference, "true")
            assert "${attr.driver.containerd.zstd} = true" in str(said.value)
            assert layer not in containerd.ctr("content", "list", "-q")

    asyncio.run(life())
