"""A task whose host and plugin die: it goes on, and nothing of it is lost."""

from __future__ import annotations

import pytest

from tests.acceptance.cluster import Cluster, Task
from tests.support.waiting import wait_until

pytestmark = pytest.mark.containerd


def counted(task: Task) -> list[str]:
    """The numbers in the log, in their order."""
    lines = task.log().splitlines()
    return [line.split()[1] for line in lines if line.startswith("count ")]


def test_a_task_goes_on_over_the_death_of_its_host_and_no_line_is_lost(
    cluster: Cluster, busybox_image: str
) -> None:
    task = cluster.run("recover", image=busybox_image)
    task.wait_log("count 3\n")
    process = task.exec("cut", "-d", " ", "-f", "22", "/proc/1/stat").out
    cluster.crash()
    seen = len(counted(task))
    wait_until(lambda: len(counted(task)) > seen + 3, 30, task.story)
    task.wait_running()
    assert task.exec("cut", "-d", " ", "-f", "22", "/proc/1/stat").out == process
    assert task.samples(1)[0].usage > 0
    task.stop()
    assert task.end().exit_code == 7
    task.wait_log("stopped\n")
    assert counted(task) == [str(number) for number in range(len(counted(task)))]


def test_an_end_while_nobody_was_there_is_known_afterwards(
    cluster: Cluster, busybox_image: str
) -> None:
    task = cluster.run("recover", image=busybox_image)
    task.wait_log("count 1\n")
    processes = task.cgroup.directory("memory") / "cgroup.procs"

    def gone() -> bool:
        return not processes.exists() or processes.read_text() == ""

    def end() -> None:
        (task.alloc_dir / "alloc/data/end").touch()
        wait_until(gone, 30, "the task does not end")

    cluster.crash(meanwhile=end)
    assert task.end().exit_code == 12
    assert task.wait_log("ended\n").endswith("ended\n")
    assert counted(task) == [str(number) for number in range(len(counted(task)))]
