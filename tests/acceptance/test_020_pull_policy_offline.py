"""Starts while the registry is away."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.clusters.cluster import Cluster
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.registries import images
from tests.support.registries.registry import Registry

pytestmark = [pytest.mark.acceptance, pytest.mark.containerd]


@pytest.fixture
def own_registry() -> Iterator[Registry]:
    """Yields a registry that a test may stop."""
    with Registry() as registry:
        yield registry


def push(registry: Registry, tag: str) -> str:
    """Pushes an image to the registry."""
    return images.push(registry.host, "app", tag, images.build([images.busybox_layer()]))


def test_an_image_that_is_there_is_started_without_its_registry(
    cluster: Cluster, own_registry: Registry, containerd: ContainerdDaemon
) -> None:
    image = push(own_registry, "1")
    # The image was never pulled, and `never` does not pull.
    assert 'image_pull_policy is "never"' in cluster.failure("offline", image=image, pull="never")
    cluster.run("offline", image=image).purge()
    own_registry.stop()

    failing = cluster.start("offline", image=image, pull="always")
    for pull in ("missing", "never"):
        task = cluster.run("offline", image=image, pull=pull)
        assert task.exec("echo", "inside").out == "inside\n"
    assert f"Error in pulling image {image}" in failing.failure()
    cluster.clean()
    assert containerd.ctr("containers", "ls", "-q") == ""


def test_the_tag_latest_is_looked_up_and_started_all_the_same(
    cluster: Cluster, own_registry: Registry
) -> None:
    image = push(own_registry, "latest")
    cluster.run("offline", image=image, pull="").purge()
    own_registry.stop()
    task = cluster.run("offline", image=image, pull="")
    assert task.exec("echo", "inside").out == "inside\n"
    assert "registry" in task.story()
