"""Tests of a pull's steps, which fail or hang: real pullers, on a scripted containerd.

The image comes from an archive of the job: containerd gets the same requests as with a registry.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from actors.model.nomad import TaskState
from containerd.api import methods
from containerd.api.methods import Method
from tests.support.fakes.containerd.daemon import PASSWD
from tests.support.fakes.stage import SLEEPER, Stage
from tests.support.plugin.driver import Job
from tests.support.registries import images
from tests.support.registries.archives import layout_files, tar_of
from tests.support.registries.pullers import pullers
from tests.support.waiting import until

STEPS: dict[str, Method[Any, Any]] = {
    "lease": methods.LEASE_CREATE,
    "blob": methods.CONTENT_WRITE,
    "labels": methods.CONTENT_UPDATE,
    "layer": methods.SNAPSHOT_PREPARE,
    "unpack": methods.DIFF_APPLY,
    "keep": methods.SNAPSHOT_COMMIT,
    "name": methods.IMAGE_CREATE,
}
EVERY_STEP = pytest.mark.parametrize("step", list(STEPS))


@pytest.fixture
def stage(running: Stage) -> Iterator[Stage]:
    """Yields the plugin; afterwards checks that no task and no pull left anything."""
    yield running
    running.reset()
    running.containerd.metadata.images.clear()
    # containerd collects the half-written content of a killed puller.
    running.containerd.metadata.ingests.clear()


def job_with_archive(stage: Stage, name: str, compression: str = "gzip") -> Job:
    """Builds a task with an image archive."""
    job = stage.driver.task()
    entries: dict[str, images.Entry] = {"etc": None, "etc/passwd": (PASSWD, 0o644)}
    lower, upper = images.layer(entries), images.layer({name: name.encode()})
    archive = Path(job.alloc.path, "t", "local", "image.tar")
    image = images.build([lower, upper], compression=compression)
    archive.write_bytes(tar_of(layout_files({"": image})))
    return job


async def start(stage: Stage, job: Job) -> None:
    """Sends StartTask."""
    await stage.driver.start(job, "mine:1", SLEEPER, load="image.tar")


async def test_an_archive_is_loaded_and_its_task_runs(stage: Stage) -> None:
    job = job_with_archive(stage, "whole")
    await start(stage, job)
    assert (await stage.session.inspect(job.id)).state is TaskState.RUNNING
    await stage.session.destroy(job.id)
    assert any(name.startswith("loaded/") for name in stage.containerd.metadata.images)


async def test_zstd_layers_are_refused_before_they_are_fetched_where_containerd_cannot_unpack_them(
    stage: Stage,
) -> None:
    blobs = dict(stage.containerd.metadata.blobs)
    job = job_with_archive(stage, "zstd", "zstd")
    stage.containerd.version, before = "1.4.13", stage.containerd.version
    try:
        error = await stage.refusal(start(stage, job))
    finally:
        stage.containerd.version = before
    assert "needs a containerd that can unpack layers compressed with zstd" in str(error)
    assert "this node has 1.4.13; containerd can since 1.5" in str(error)
    assert stage.containerd.metadata.blobs == blobs


@EVERY_STEP
async def test_a_step_of_a_pull_that_fails_is_told_and_leaves_nothing_unfinished(
    stage: Stage, step: str
) -> None:
    text = "a disk full of sorrow: unknown"
    stage.containerd.fail(STEPS[step], grpc.StatusCode.UNKNOWN, text)
    error = await stage.refusal(start(stage, job_with_archive(stage, f"fails-{step}")))
    assert "a disk full of sorrow" in str(error)
    assert "containerd cannot " in str(error)
    stage.containerd.faults.clear()
    assert stage.containerd.leftovers() == []
    assert stage.containerd.metadata.ingests == {}


@EVERY_STEP
async def test_a_pull_that_hangs_ends_with_its_task_and_takes_its_puller_along(
    stage: Stage, step: str
) -> None:
    job = job_with_archive(stage, f"hangs-{step}")
    fault = stage.containerd.hang(STEPS[step])
    starting = asyncio.create_task(start(stage, job))
    await until(lambda: fault.calls or starting.done(), 20, f"no pull reaches {step}")
    await stage.session.stop(job.id)
    assert "the start was cancelled" in str(await stage.refusal(starting))
    await until(lambda: fault.abandoned == fault.calls, 20, "a call outlives its caller")
    stage.containerd.faults.clear()
    await until(lambda: not pullers(stage.session.pid), 20, "a puller goes on")


async def test_a_puller_that_is_killed_is_told_with_what_may_have_killed_it(stage: Stage) -> None:
    fault = stage.containerd.hang(STEPS["blob"])
    starting = asyncio.create_task(start(stage, job_with_archive(stage, "killed")))
    await until(lambda: fault.calls or starting.done(), 20, "no pull begins")
    (puller,) = pullers(stage.session.pid)
    os.kill(puller, signal.SIGKILL)
    error = await stage.refusal(starting)
    assert error.recoverable
    assert "the puller process ended without an answer: killed by signal 9" in str(error)
    assert "dmesg" in str(error)
    stage.containerd.faults.clear()
    assert stage.containerd.leftovers() == []
