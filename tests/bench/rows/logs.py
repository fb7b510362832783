"""The row `logs`: bytes a second of a task's log, through Nomad's FIFO and by the collector.

The measure is a container of raw calls: the shim copies each byte, with any driver.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from containerd.api.client import Containerd
from containerd.image.oci_image import LoadedImage
from tests.bench.figures import Figure, Measured, Plot, PlotKind, samples
from tests.bench.raw_calls import RawTask
from tests.bench.setting import Setting, loaded
from tests.support.plugin.driver import Driver, Job, launched
from tests.support.workers.launcher import end_launcher

_MIB = 1024 * 1024
_LOG_MIB = 1024
_BLOCK = 64 * 1024
# The last block is in the pipe when `dd` ends, so all bytes but 64 KiB are in the files.
_MARKED = ": >/local/begin; {write} && : >/local/end"
_WRITE = f"dd if=/dev/zero bs={_BLOCK} count={_LOG_MIB * _MIB // _BLOCK}"
_PART_OF_ROUNDS = 20
_READ_BYTES = _MIB
_FIRST_BYTE_MS = 30_000


async def measure(setting: Setting) -> Measured:
    """Measures 1 GiB of log in turns: raw calls, a plain pipe, the FIFO, the worker's files."""
    rounds = max(2, setting.plan.rounds // _PART_OF_ROUNDS)
    raw, pipe, fifo, files = [], [], [], []
    with _collecting(setting) as collecting:
        async with (
            launched(setting.driver),
            launched(collecting),
            setting.containerd() as client,
        ):
            image = await loaded(client, setting.image)
            for number in range(rounds + 1):
                by_pipe = await asyncio.to_thread(_through_pipe)
                by_raw = await _by_raw_calls(setting, client, image)
                by_fifo = await _through_fifo(setting)
                by_files = await _into_files(collecting, setting.image)
                if number:
                    pipe.append(_LOG_MIB / by_pipe)
                    raw.append(_LOG_MIB / by_raw)
                    fifo.append(_LOG_MIB / by_fifo)
                    files.append(_LOG_MIB / by_files)
                setting.progress.step(number, rounds, "GiB")
    ours, by_hand, plain, collected = map(statistics.median, (fifo, raw, pipe, files))
    return Measured(
        figures=[
            Figure(
                name="time of 1 GiB of log / of a container of raw calls",
                value=by_hand / ours,
                limit=1.15,
                unit="x",
                note=f"{ours:.0f} MiB/s against {by_hand:.0f}; a plain pipe has {plain:.0f}",
            ),
            Figure(
                name="the same into files with log_collection = driver / through the FIFO",
                value=ours / collected,
                limit=1.5,  # the bytes of the files are copied once more, on the same cores
                unit="x",
                note=f"{collected:.0f} MiB/s against {ours:.0f} MiB/s",
            ),
        ],
        plots=[
            Plot(
                title="1 GiB of log, 64 KiB writes",
                kind=PlotKind.BARS,
                x="",
                y="MiB/s",
                series={
                    "plain pipe": samples(pipe),
                    "raw calls": samples(raw),
                    "task of this driver": samples(fifo),
                    "log_collection = driver": samples(files),
                },
            )
        ],
    )


@contextlib.contextmanager
def _collecting(setting: Setting) -> Iterator[Driver]:
    """Yields a second driver on the same containerd, which collects the logs."""
    with tempfile.TemporaryDirectory() as directory:
        config = {"log_collection": "driver"}
        driver = Driver(setting.driver.containerd, Path(directory), config)
        try:
            yield driver
        finally:
            end_launcher(driver.state_dir)


async def _into_files(driver: Driver, image: str) -> float:
    """Returns the seconds that a task needs for 1 GiB of log, by the task's own marks."""
    job = driver.task("writer")
    for stream in ("stdout", "stderr"):  # as on a Nomad client
        job.alloc.fifo(job.config.name, stream).unlink()
    config = {"image": image, "command": "/bin/sh", "args": ["-c", _MARKED.format(write=_WRITE)]}
    await driver.session.start(job.config, config)
    result = await driver.session.wait(job.id)
    assert result.exit_code == 0, result
    local = job.alloc.path / job.config.name / "local"
    begun, ended = ((local / name).stat().st_mtime_ns for name in ("begin", "end"))
    await driver.session.destroy(job.id)
    return (ended - begun) / 1e9


async def _by_raw_calls(setting: Setting, client: Containerd, image: LoadedImage) -> float:
    job = setting.driver.task("raw")
    task = RawTask(client, job)
    await task.prepare()
    async with _drained(job) as reading:
        await task.start(image, setting.image, f"exec {_WRITE}")
        spent = await reading
        await task.end()
    return spent


async def _through_fifo(setting: Setting) -> float:
    job = setting.driver.task("writer")
    async with _drained(job) as reading:
        config = {"image": setting.image, "command": "/bin/sh", "args": ["-c", f"exec {_WRITE}"]}
        await setting.driver.session.start(job.config, config)
        spent = await reading
        await setting.driver.session.wait(job.id)
        await setting.driver.session.destroy(job.id)
    return spent


@contextlib.asynccontextmanager
async def _drained(job: Job) -> AsyncIterator[asyncio.Task[float]]:
    """Reads a task's log to the end; the result is that of `_drain`."""
    paths = [job.alloc.fifo(job.config.name, stream) for stream in ("stdout", "stderr")]
    # The open never waits for a writer, and the first read waits in `_drain`.
    out, err = (os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC) for path in paths)
    try:
        yield asyncio.create_task(asyncio.to_thread(_drain, out))
    finally:
        os.close(out)
        os.close(err)


def _through_pipe() -> float:
    words = [str(Path("/bin/busybox")), *_WRITE.split()]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as writer:
        assert writer.stdout is not None
        return _drain(writer.stdout.fileno())


def _drain(descriptor: int) -> float:
    """Reads a log to the end.

    Returns:
        Seconds from the first byte to the end.

    Raises:
        AssertionError: no byte came in 30 s, or bytes are missing.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    assert poll.poll(_FIRST_BYTE_MS), "no byte of the log came"
    os.set_blocking(descriptor, True)
    buffers = [bytearray(_READ_BYTES)]
    count = 0
    begun = time.perf_counter()
    while length := os.readv(descriptor, buffers):
        count += length
    spent = time.perf_counter() - begun
    assert count == _LOG_MIB * _MIB, f"{count} bytes of {_LOG_MIB} MiB came"
    return spent
