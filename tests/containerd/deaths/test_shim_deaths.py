"""Tests of a killed shim, alone and with other victims: the task is lost, with a clear reason."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest

from proto.errors import DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.kernel.traces import processes_of, traces
from tests.support.plugin.driver import Driver, Job, launched
from tests.support.plugin.victims import CONTAINERD, LAUNCHER, PLUGIN, WORKER, Victims, runs
from tests.support.registries import images
from tests.support.waiting import until
from workers.protocol import LOST_CODE

pytestmark = pytest.mark.containerd

# The output comes when both processes run.
SLEEPER = "sleep 600 & echo ready; wait"
AROUND = [(), (LAUNCHER,), (CONTAINERD,), (PLUGIN,), (WORKER,), (WORKER, CONTAINERD)]


def shim_of(daemon: ContainerdDaemon, container: str) -> int:
    """Returns the pid of a container's shim."""
    every = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in daemon.shim_pids()}
    (found,) = [pid for pid, words in every.items() if container.encode() in words.split(b"\0")]
    return found


async def _gone(job: Job, processes: list[int], worker: int | None) -> None:
    everybody = [*processes, worker]
    await until(lambda: not any(runs(pid) for pid in everybody), 10, "a process is left")
    await until(lambda: not traces([job.container]), 10, lambda: str(traces([job.container])))


@pytest.mark.parametrize("victims", AROUND, ids=lambda victims: "+".join(("shim", *victims)))
async def test_a_task_whose_shim_is_killed_is_lost_with_the_reason_and_nothing_is_left(
    driver: Driver, containerd: ContainerdDaemon, busybox_image: str, victims: tuple[str, ...]
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        handle = await driver.start(job, busybox_image, SLEEPER)
        await until(lambda: job.out, 10)
        around, processes = Victims(driver, job), processes_of(job.container)
        assert len(processes) > 1
        around.kill(*victims)
        os.kill(shim_of(containerd, job.container), signal.SIGKILL)
        await around.bring_back(*victims, handle=handle)
        result = await session.wait(job.id)
        assert result.exit_code == LOST_CODE
        assert "shim" in result.error or "containerd has no such task" in result.error
        await driver.end(job)
        await _gone(job, processes, around.worker)


async def test_a_task_whose_plugin_worker_and_shim_are_killed_is_not_recovered_and_nothing_is_left(
    driver: Driver, containerd: ContainerdDaemon, busybox_image: str
) -> None:
    async with launched(driver):
        job = driver.task()
        handle = await driver.start(job, busybox_image, SLEEPER)
        await until(lambda: job.out, 10)
        around, processes = Victims(driver, job), processes_of(job.container)
        around.kill(PLUGIN, WORKER)
        os.kill(shim_of(containerd, job.container), signal.SIGKILL)
        with pytest.raises(DriverError, match="task not found"):
            await around.bring_back(PLUGIN, handle=handle)
        await driver.end(job)
        await _gone(job, processes, around.worker)


async def test_a_container_that_only_the_runtime_still_knows_gives_its_name_back(
    driver: Driver, busybox_image: str, tmp_path: Path
) -> None:
    root = Path("/run/containerd/runc", driver.containerd.namespace)
    runc = ("runc", "--root", str(root))
    async with launched(driver):
        job = driver.task()
        bundle = tmp_path / "bundle"
        shell = bundle / "rootfs" / "bin" / "sh"
        shell.parent.mkdir(parents=True)
        shutil.copy(images.BUSYBOX, shell)
        run = partial(subprocess.run, check=True, stdin=subprocess.DEVNULL)
        run([*runc, "spec", "--bundle", bundle])
        spec = json.loads((bundle / "config.json").read_text())
        spec["process"]["terminal"] = False
        (bundle / "config.json").write_text(json.dumps(spec))
        run([*runc, "create", "--bundle", bundle, job.container], stdout=subprocess.DEVNULL)
        assert (root / job.container / "state.json").exists()
        assert await driver.output(busybox_image, "echo mine", job) == "mine\n"
        assert not (root / job.container).exists()
