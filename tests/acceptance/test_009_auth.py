"""Acceptance tests of an image that a registry gives only for a password."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from tests.acceptance.clusters.cluster import Cluster
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.registries import images, stand_ins
from tests.support.registries.registry import Registry

pytestmark = [pytest.mark.acceptance, pytest.mark.containerd]

USER, PASSWORD = "somebody", "not for everybody"
DENIED = "pull access denied, repository does not exist or may require authorization"


@pytest.fixture(scope="module")
def private_registry() -> Iterator[Registry]:
    """Yields a registry with a password."""
    with Registry(USER, PASSWORD) as registry:
        yield registry


@pytest.fixture
def private_image(private_registry: Registry, containerd: ContainerdDaemon) -> Iterator[str]:
    """Yields an image of the registry, which containerd lacks before and after the test."""
    word = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    image = images.push(private_registry.host, "team/app", "1", stand_ins.ubuntu(), f"Basic {word}")
    yield image
    containerd.ctr("images", "rm", "--sync", image, check=False)


def test_without_the_right_password_the_task_fails_and_the_reason_is_told(
    cluster: Cluster, containerd: ContainerdDaemon, private_image: str
) -> None:
    without = cluster.start("auth", image=private_image)
    wrong = cluster.start("auth", image=private_image, username=USER, password="wrong-word")
    for task in (without, wrong):
        story = task.failure()
        assert DENIED in story
        assert private_image in story
        assert "wrong-word" not in story
    assert private_image not in containerd.ctr("images", "ls", "-q")


def test_with_the_password_the_task_runs(cluster: Cluster, private_image: str) -> None:
    task = cluster.run("auth", image=private_image, username=USER, password=PASSWORD)
    assert task.exec("echo", "inside").out == "inside\n"
    assert PASSWORD not in task.story()
