"""A plugin without descriptors, threads or processes says so, lives on and needs no restart."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path

import pytest

from actors.model.nomad import TaskState
from proto.errors import DriverError
from tests.support.fakes.stage import IMAGE, SLEEPER, Stage
from tests.support.kernel.scarce import no_descriptors, no_forks
from tests.support.waiting import until
from tests.support.workers.launcher import worker_pids


def open_files(stage: Stage) -> int:
    return len(list(Path(f"/proc/{stage.session.pid}/fd").iterdir()))


@pytest.mark.parametrize("left", range(8))
async def test_a_plugin_short_of_descriptors_fails_by_name_and_keeps_none_for_it(
    stage: Stage, left: int
) -> None:
    runs = stage.driver.task("runs")
    await stage.start(runs)
    pins = stage.driver.state_dir / "mounts"
    await until(lambda: not list(pins.iterdir()), 10, "the pins of the start stay")
    workers, pid = worker_pids(stage.driver.state_dir), stage.session.pid
    before = open_files(stage)
    with no_descriptors(pid, left):
        job = stage.driver.task("new")
        for work in (
            stage.start(job),
            stage.session.exec(runs.id, ["/bin/true"]),
            stage.session.destroy(job.id),
        ):
            try:
                await work
            except DriverError as error:
                assert "Too many open files" in str(error)  # noqa: PT017 - with some it works
                assert "LimitNOFILE" in str(error)  # noqa: PT017
                assert error.recoverable  # noqa: PT017
        assert (await stage.session.inspect(runs.id)).state is TaskState.RUNNING
    await until(lambda: open_files(stage) <= before, 10, lambda: str(open_files(stage)))
    assert stage.session.pid == pid
    await stage.session.destroy(job.id)
    assert worker_pids(stage.driver.state_dir) == workers
    assert (await stage.session.exec(runs.id, ["/bin/echo", "on"])).stdout == b"on\n"
    await stage.session.stop(runs.id)
    assert (await stage.session.wait(runs.id)).signal == 15
    await stage.session.destroy(runs.id)


@pytest.mark.parametrize("left", range(5))
async def test_a_plugin_that_gets_no_thread_or_process_fails_by_name_and_lives_on(
    stage: Stage, left: int
) -> None:
    runs, new, pulls = (stage.driver.task(name) for name in ("runs", "new", "pulls"))
    await stage.start(runs)
    pid = stage.session.pid
    with no_forks(pid, left):
        for job, image in ((new, IMAGE), (pulls, "127.0.0.1:9/none:1")):
            try:
                await stage.driver.start(job, image, SLEEPER)
            except DriverError as error:
                scarce = "TasksMax" in str(error) or "want of memory or processes" in str(error)
                # With some processes a pull works, and meets the port where nothing listens.
                scarce |= "Connection refused" in str(error)
                assert scarce, str(error)  # noqa: PT017
                assert error.recoverable  # noqa: PT017
        assert (await stage.session.exec(runs.id, ["/bin/echo", "on"])).stdout == b"on\n"
        await stage.session.stop(runs.id)
        assert (await stage.session.wait(runs.id)).signal == 15
        for job in (runs, new, pulls):
            await stage.session.destroy(job.id)
    assert (stage.session.pid, stage.session.alive) == (pid, True)


@pytest.mark.parametrize("scarce", [no_descriptors, no_forks], ids=["descriptors", "threads"])
async def test_a_recovery_waits_for_what_ran_out_and_loses_no_task(
    stage: Stage, caplog: pytest.LogCaptureFixture, scarce: object
) -> None:
    job = stage.driver.task()
    job.read_logs()
    config = {"image": IMAGE, "command": "/bin/sh", "args": ["-c", SLEEPER]}
    handle = await stage.session.start(job.config, config)
    workers = worker_pids(stage.driver.state_dir)
    stage.session.kill_plugin()
    await stage.session.launch()
    await stage.session.fingerprint()
    with scarce(stage.session.pid):  # type: ignore[operator]
        recovering = asyncio.create_task(stage.session.recover(handle))
        said = "recovery of task failed, trying again"
        await until(lambda: said in caplog.text or recovering.done(), 20, "nobody tries again")
    await recovering
    assert (await stage.session.inspect(job.id)).state is TaskState.RUNNING
    assert worker_pids(stage.driver.state_dir) == workers
    await stage.session.destroy(job.id)


async def test_a_low_soft_limit_of_open_files_is_not_the_plugins(stage: Stage) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    stage.session.kill_plugin()
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        await stage.session.launch()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert resource.prlimit(stage.session.pid, resource.RLIMIT_NOFILE) == (hard, hard)
