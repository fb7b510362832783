"""Acceptance tests of a task that exceeds the memory limit."""

from __future__ import annotations

import pytest

from tests.acceptance.clusters.cluster import Cluster
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.acceptance, pytest.mark.containerd]


def test_a_task_over_its_memory_is_killed_and_the_reason_is_told(
    cluster: Cluster, containerd: ContainerdDaemon, busybox_image: str
) -> None:
    task = cluster.start("oom", image=busybox_image)
    end = task.end()
    assert (end.exit_code, end.oom_killed) == (137, True)
    wait_until(lambda: "out of memory" in task.story(), 10, task.story)
    task.purge()
    assert containerd.ctr("containers", "ls", "-q") == ""
