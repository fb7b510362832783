"""Acceptance tests of a server: name, directory, system call filter, memory, and end."""

from __future__ import annotations

import pytest

from tests.acceptance.clusters.cluster import Cluster
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.acceptance, pytest.mark.containerd]

MIB = 1024 * 1024


def test_a_server_runs_as_its_job_says_and_is_gone_after_its_stop(
    cluster: Cluster, containerd: ContainerdDaemon, redis_image: str
) -> None:
    task = cluster.run("redis", image=redis_image)
    assert task.state == "running"
    listed = [line for line in containerd.ctr("tasks", "ls").splitlines() if task.container in line]
    assert [line.split()[2] for line in listed] == ["RUNNING"]
    task.wait_log("Ready to accept connections")

    # The image lacks the working directory, and an exec begins in the directory too.
    assert task.exec("pwd").out == "/home/redis\n"
    assert task.exec("hostname").out == "foobar\n"
    assert "Seccomp:\t2\n" in task.exec("cat", "/proc/1/status").out
    assert task.cgroup.memory_reservation == 256 * MIB
    assert task.cgroup.memory_limit == 512 * MIB

    cgroup = task.cgroup
    assert cgroup.exists()
    task.stop()
    assert task.state == "dead"
    assert task.end().exit_code == 0
    assert task.wait_log("bye bye").endswith("bye bye\n")
    task.purge()
    assert task.container not in containerd.ctr("containers", "ls", "-q")
    wait_until(lambda: not cgroup.exists(), 10, "the cgroup stays")
