"""Acceptance tests of a task's user by name and number, and of the user's groups."""

from __future__ import annotations

import pytest

from tests.acceptance.clusters.cluster import Cluster
from tests.support.daemons.containerd_daemon import ContainerdDaemon

pytestmark = [pytest.mark.acceptance, pytest.mark.containerd]


@pytest.mark.parametrize(
    ("user", "uid", "gid", "groups"),
    [
        # The image has bob in group adm, which is 4.
        ("bob", "1000", "1000", {"1000", "4", "2000"}),
        ("1000:4", "1000", "4", {"4", "2000"}),
        ("4321", "4321", "0", {"0", "2000"}),
    ],
)
def test_a_task_has_the_user_and_groups_of_its_job(
    cluster: Cluster, busybox_image: str, user: str, uid: str, gid: str, groups: set[str]
) -> None:
    task = cluster.run("user", image=busybox_image, user=user)
    assert task.wait_log("\n").startswith(f"uid={uid}")
    # So has an exec.
    assert task.shell("id -u; id -g").split() == [uid, gid]
    assert set(task.shell("id -G").split()) == groups


def test_a_user_that_the_image_does_not_know_is_told(
    cluster: Cluster, containerd: ContainerdDaemon, busybox_image: str
) -> None:
    assert "no users found" in cluster.failure("user", image=busybox_image, user="nobody-knows")
    assert containerd.ctr("containers", "ls", "-q") == ""
