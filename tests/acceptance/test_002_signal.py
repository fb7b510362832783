"""Acceptance tests of signals by name, and of names that are no signals."""

from __future__ import annotations

import pytest

from tests.acceptance.clusters.cluster import Cluster

pytestmark = [pytest.mark.acceptance, pytest.mark.containerd]


def test_a_signal_reaches_the_task_and_a_wrong_name_is_refused(
    cluster: Cluster, busybox_image: str
) -> None:
    task = cluster.run("signal", image=busybox_image)
    task.wait_log("ready")
    assert "Invalid signal" in task.signal("INVALID")
    assert task.state == "running"
    for name in ("SIGUSR1", "SIGHUP"):
        assert task.signal(name) == ""
        task.wait_log(f"got {name}")
    task.stop()
    assert task.state == "dead"
    assert task.end().exit_code == 0
    assert task.wait_log("got SIGTERM").endswith("got SIGTERM\n")
