"""Tests of limits of a task under `containerd-driver run`, as the kernel keeps the limits."""

from __future__ import annotations

import os
from typing import Any

import pytest

from actors.model import cpu_topology
from tests.containerd.network.test_bridge import group, task
from tests.containerd.process.test_process_options import _limit
from tests.support.plugin.driver import Driver
from tests.support.plugin.host_run import Run

pytestmark = pytest.mark.containerd
PERIOD_US = 100_000


def test_a_hard_limit_is_the_share_of_the_node_that_the_job_asks_for(
    run: Run, driver: Driver, image: str
) -> None:
    speed = cpu_topology.measure()
    total_mhz = speed.total_mhz or 1000 * speed.cores
    web: dict[str, Any] = task(image, "echo up; exec sleep 600")
    web["Config"]["cpu_hard_limit"] = True
    web["Resources"] = {"CPU": total_mhz // 2, "MemoryMB": 64}
    run.start([group({"Mode": "none"}, web)])
    run.wait_said("log")
    (container,) = driver.daemon.ctr("tasks", "ls", "-q").split()
    quota_us = int(_limit(container, "cpu.cfs_quota_us", "cpu.max").split()[0])
    assert quota_us == pytest.approx((os.cpu_count() or 1) / 2 * PERIOD_US, rel=0.01)
    run.stop()
