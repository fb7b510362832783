"""Tests of a killed embedded host: the plugin ends, the task keeps running and can be removed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from actors.model import identifiers
from actors.model.ownership import LABEL_TASK_ID
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.kernel.own_network import OwnNetwork
from tests.support.kernel.traces import traces
from tests.support.plugin.driver import Driver, children, launched
from tests.support.plugin.host_run import Run
from tests.support.plugin.victims import runs
from tests.support.waiting import wait_until
from tests.support.workers.launcher import worker_pids

pytestmark = pytest.mark.containerd

SCRIPT = "i=0; while :; do i=$((i+1)); echo $i; echo $i >/local/count; sleep 0.05; done"


def group(image: str) -> dict[str, Any]:
    config = {"image": image, "command": "/bin/sh", "args": ["-c", SCRIPT]}
    return {"Name": "g", "Tasks": [{"Name": "t", "Driver": "containerd-driver", "Config": config}]}


def counted(allocation: Path) -> int:
    """Returns the progress of the task, which empties the file before a write."""
    return int((allocation / "t/local/count").read_text() or 0)


def running(daemon: ContainerdDaemon) -> list[list[str]]:
    """Returns container and pid of every running task."""
    rows = [line.split() for line in daemon.ctr("tasks", "list").splitlines()[1:]]
    return [row[:2] for row in rows if row[2] == "RUNNING"]


async def test_a_task_goes_on_when_its_embedded_host_is_killed_and_the_hosts_plugin_ends(
    driver: Driver, containerd: ContainerdDaemon, busybox_image: str, tmp_path: Path
) -> None:
    async with launched(driver):
        await driver.output(busybox_image, "true")
    with OwnNetwork() as network:
        run = Run(network, driver, tmp_path)
        run.start([group(busybox_image)])
        run.wait_said("log")
        assert run.process is not None
        plugins = [int(pid) for pid in children(run.process.pid)]
        assert plugins
        before = running(containerd)
        os.kill(run.process.pid, signal.SIGKILL)
        run.finish()
    ((container, _),) = before
    info = json.loads(containerd.ctr("containers", "info", container))
    task_id: str = info["Labels"][LABEL_TASK_ID]
    allocation = driver.alloc_root / identifiers.split_task_id(task_id)[0]
    wait_until(lambda: not any(runs(pid) for pid in plugins), 10, "its plugin stays")
    seen = counted(allocation)
    wait_until(lambda: counted(allocation) > seen + 5, 10, "the task stands still")
    assert running(containerd) == before
    (worker,) = worker_pids(driver.state_dir)
    async with launched(driver) as session:
        await session.destroy(task_id)
    wait_until(lambda: not runs(worker), 10, "its worker is left")
    wait_until(lambda: not traces([container]), 10, lambda: str(traces([container])))
