"""Acceptance tests of a config that allows no privileged tasks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.clusters.cluster import Cluster
from tests.support.daemons.containerd_daemon import ContainerdDaemon

pytestmark = [pytest.mark.acceptance, pytest.mark.containerd]


@pytest.fixture
def strict(cluster: Cluster) -> Iterator[Cluster]:
    """Yields the host with another config, and restores the usual config after the test."""
    cluster.restart(allow_privileged=False)
    yield cluster
    cluster.restart()


def test_a_privileged_job_is_refused_where_the_operator_says_so(
    strict: Cluster, containerd: ContainerdDaemon, ubuntu_image: str, tmp_path: Path
) -> None:
    story = strict.failure("privileged", image=ubuntu_image, source=str(tmp_path))
    assert "Running privileged jobs are not allowed" in story
    assert "Set allow_privileged to true in plugin config" in story
    assert containerd.ctr("containers", "ls", "-q") == ""
    # Others run as ever.
    task = strict.run("capabilities", image=ubuntu_image)
    assert task.exec("echo", "inside").out == "inside\n"
