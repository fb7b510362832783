"""A full state directory, a full allocation directory: refused by name, running tasks untouched."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.model.nomad import TaskState
from proto.errors import DriverError
from tests.support.fakes.stage import Stage
from tests.support.kernel.scarce import SmallDisk
from tests.support.plugin.victims import LAUNCHER, WORKER, Victims
from tests.support.waiting import until
from tests.support.workers.launcher import worker_pids
from workers import protocol

STATE, ALLOCATIONS = "state", "allocs"


@pytest.fixture(scope="module")
def places() -> Iterator[Path]:
    """Yields a directory with a small file system at each of the driver's places."""
    directory = Path(tempfile.mkdtemp(prefix="cds-"))
    disks = []
    for name in (STATE, ALLOCATIONS):
        (directory / name).mkdir(mode=0o700)
        disks.append(SmallDisk(directory / name))
    yield directory
    for disk in disks:
        disk.close()
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def stage(places: Path) -> Iterator[Stage]:
    """Yields one plugin for all tests of the module."""
    with Stage(places) as running:
        yield running


@pytest.mark.parametrize("what", ["fill", "fill_inodes"])
@pytest.mark.parametrize("place", [STATE, ALLOCATIONS])
async def test_a_full_place_refuses_new_tasks_by_name_and_leaves_running_ones_alone(
    stage: Stage, places: Path, place: str, what: str
) -> None:
    disk = SmallDisk.of(places / place)
    try:
        runs = stage.driver.task("runs")
        await stage.start(runs, "echo first; exec sleep 600")
        await until(lambda: runs.out, 10, "no output")
        (worker,) = worker_pids(stage.driver.state_dir)
        job = stage.driver.task("new")
        getattr(disk, what)()
        error = await refusal(stage, job)
        assert error.recoverable
        assert "No space left on device" in str(error)
        assert "make room" in str(error)
        assert str(places / place) in str(error)
        assert [left for left in stage.driver.leftovers() if job.container in left] == []
        assert worker_pids(stage.driver.state_dir) == [worker]
        echo = stage.session.exec(runs.id, ["/bin/echo", "here"])
        if (place, what) == (STATE, "fill_inodes"):
            with pytest.raises(DriverError, match=r"cannot run a command.*make room"):
                await echo
        else:
            assert (await echo).stdout == b"here\n"
        assert [left for left in stage.driver.leftovers() if "exec" in left] == []
        await stage.session.stop(runs.id)
        assert (await stage.session.wait(runs.id)).signal == 15
        await stage.session.destroy(runs.id)
        await runs.logs_end()
        assert bytes(runs.out) == b"first\n"
        disk.free()
        await stage.start(job, "exit 3")
        assert (await stage.session.wait(job.id)).exit_code == 3
        await stage.session.destroy(job.id)
        assert stage.containerd.leftovers() == []
    finally:
        disk.free()


async def test_a_task_whose_worker_and_launcher_die_on_a_full_disk_gets_both_back_with_room(
    stage: Stage, places: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = SmallDisk.of(places / STATE)
    try:
        job = stage.driver.task()
        await stage.start(job, "sleep 600 & wait; exit 3")
        around = Victims(stage.driver, job)
        (places / STATE / protocol.LAUNCHER_LOG).unlink()
        disk.fill()
        around.kill(LAUNCHER, WORKER)
        told = "cannot reach the worker launcher: exit status 1: cannot serve in"
        await until(lambda: told in caplog.text, 10, lambda: caplog.text)
        assert "No space left on device" in caplog.text
        assert "make room" in caplog.text
        assert (await stage.session.inspect(job.id)).state is TaskState.RUNNING
        disk.free()
        await until(lambda: worker_pids(stage.driver.state_dir), 10, "no worker comes back")
        await stage.session.stop(job.id)
        assert (await stage.session.wait(job.id)).exit_code == 143
        await stage.session.destroy(job.id)
    finally:
        disk.free()


async def refusal(stage: Stage, job: Any) -> DriverError:
    with pytest.raises(DriverError) as failed:
        await stage.start(job, "exit 3")
    return failed.value
