"""Acceptance tests of a task under gVisor: a separate kernel, and the same life."""

from __future__ import annotations

import shutil

import pytest

from tests.acceptance.clusters.cluster import Cluster
from tests.support.needs import missing

pytestmark = [pytest.mark.acceptance, pytest.mark.containerd]


def test_a_task_under_gvisor_has_its_own_kernel_and_the_life_of_any_other(
    cluster: Cluster, busybox_image: str
) -> None:
    if shutil.which("runsc") is None:
        missing("containerd", "runsc is not installed (apt-get install runsc)")
    task = cluster.run("gvisor", image=busybox_image)
    assert task.wait_log("\n").startswith("Linux version 4.4.0")
    done = task.exec("/bin/sh", "-c", "echo inside; echo bad >&2; exit 3")
    assert (done.code, done.out, done.err) == (3, "inside\n", "bad\n")
    task.stop()
    assert task.end().exit_code == 9
