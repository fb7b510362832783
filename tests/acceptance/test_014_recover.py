"""Acceptance tests of a killed host and plugin: tasks run on, ends are known, logs are whole."""

from __future__ import annotations

import pytest

from tests.acceptance.clusters.cluster import Cluster, Task
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.acceptance, pytest.mark.containerd]


def counted(task: Task) -> list[str]:
    """Returns the numbers in the log, in their order."""
    lines = task.log().splitlines()
    return [line.split()[1] for line in lines if line.startswith("count ")]


def whole(task: Task) -> bool:
    """Tells whether no number is missing and no number appears twice."""
    numbers = counted(task)
    return numbers == [str(number) for number in range(len(numbers))]


def started_at(task: Task) -> str:
    """Returns the start time of the task's first process, by the kernel's clock."""
    return task.shell("cut -d ' ' -f 22 /proc/1/stat")


def test_tasks_outlive_their_host_and_its_plugin(cluster: Cluster, busybox_image: str) -> None:
    going = cluster.run("recover", image=busybox_image)
    ending = cluster.run("recover", image=busybox_image)
    for task in (going, ending):
        task.wait_log("count 3\n")
    began = started_at(going)
    processes = ending.cgroup.directory("pids") / "cgroup.procs"

    def gone() -> bool:
        return not processes.exists() or processes.read_text() == ""

    def end_one() -> None:
        (ending.alloc_dir / "alloc/data/end").touch()
        wait_until(gone, 30, "the task does not end")

    cluster.crash(meanwhile=end_one)

    assert ending.end().exit_code == 12
    assert ending.wait_log("ended\n").endswith("ended\n")
    assert whole(ending)

    seen = len(counted(going))
    wait_until(lambda: len(counted(going)) > seen + 3, 30, going.story)
    assert going.state == "running"
    assert started_at(going) == began
    assert going.samples(1)[0].usage > 0
    going.stop()
    assert going.end().exit_code == 7
    going.wait_log("stopped\n")
    assert whole(going)
