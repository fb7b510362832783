"""Acceptance tests of stats: Nomad's figures of a task against the kernel's counters."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from tests.acceptance.clusters.cluster import Cluster, Sample, Task
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.acceptance, pytest.mark.containerd]

MIB = 1024 * 1024
HELD = 24
# The counters of several processors are not read at the same moment.
SLACK_NS = 50_000_000


def test_memory_and_processor_time_are_what_the_kernel_says(
    cluster: Cluster, busybox_image: str
) -> None:
    task = cluster.run("stress", image=busybox_image, megabytes=str(HELD))
    wait_until(lambda: task.cgroup.anonymous_bytes > HELD * MIB, 30, "the memory is not held")

    before, began_ns = task.cgroup.cpu_ns, time.monotonic_ns()
    samples = task.samples(3)
    counted, wall_ns = task.cgroup.cpu_ns - before, time.monotonic_ns() - began_ns
    shown, span_ns = used_ns(samples), samples[-1].at_ns - samples[0].at_ns
    # The kernel counted all time in the samples. The rest was used outside of the samples' span,
    # when the task can have used at most the single processor that the task burns.
    assert shown <= counted + SLACK_NS
    assert shown >= counted - (wall_ns - span_ns) - SLACK_NS
    for sample in samples[1:]:
        assert sample.percent > 1
        assert sample.user_percent > sample.system_percent
        mhz = sample.total_ticks / sample.percent * 100
        assert 300 < mhz < 10_000

    # A satisfied task does not change memory use.
    wait_until(lambda: same_memory(task), 30, lambda: f"{task.samples(1)}, {memory(task)}")
    newest = task.samples(1)[0]
    assert HELD * MIB < newest.rss <= newest.usage <= 64 * MIB
    assert newest.swap == 0


def used_ns(samples: list[Sample]) -> float:
    """Returns the processor time between the first sample and the last."""
    return sum(now.percent / 100 * (now.at_ns - before.at_ns) for before, now in pairwise(samples))


def memory(task: Task) -> tuple[int, int, int]:
    """Returns RSS, cache and usage from the kernel's own files."""
    cgroup = task.cgroup
    return cgroup.anonymous_bytes, cgroup.cache_bytes, cgroup.memory_usage


def same_memory(task: Task) -> bool:
    """Tells whether a sample equals the kernel's figures before and after the sample."""
    before = memory(task)
    sample = task.samples(1)[0]
    return before == (sample.rss, sample.cache, sample.usage) == memory(task)
