"""The row `logs`: bytes a second of a task's log, beside a plain pipe."""

from __future__ import annotations

import asyncio
import os
import select
import statistics
import subprocess
import time
from pathlib import Path

from tests.bench.figures import Figure, Measured, Plot, PlotKind, samples
from tests.bench.setting import Setting
from tests.support.driver import launched

_MIB = 1024 * 1024
_LOG_MIB = 1024
_BLOCK = 64 * 1024
_WRITE = f"dd if=/dev/zero bs={_BLOCK} count={_LOG_MIB * _MIB // _BLOCK}"
_PART_OF_ROUNDS = 20
_READ_BYTES = _MIB
_FIRST_BYTE_MS = 30_000


async def measure(setting: Setting) -> Measured:
    """Measures 1 GiB of a task's log through the FIFO, beside a plain pipe of the same reader."""
    rounds = max(2, setting.plan.rounds // _PART_OF_ROUNDS)
    pipe, fifo = [], []
    async with launched(setting.driver):
        for number in range(rounds + 1):
            by_pipe = await asyncio.to_thread(_through_pipe)
            by_fifo = await _through_fifo(setting)
            if number:
                pipe.append(_LOG_MIB / by_pipe)
                fifo.append(_LOG_MIB / by_fifo)
            setting.progress.step(number, rounds, "GiB")
    ours, plain = statistics.median(fifo), statistics.median(pipe)
    return Measured(
        figures=[
            Figure(
                name="time of 1 GiB of log / through a plain pipe",
                value=plain / ours,
                limit=2.0,  # the shim copies once more
                unit="x",
                note=f"{ours:.0f} MiB/s against {plain:.0f} MiB/s",
            )
        ],
        plots=[
            Plot(
                title="1 GiB of log, 64 KiB writes",
                kind=PlotKind.BARS,
                x="",
                y="MiB/s",
                series={"plain pipe": samples(pipe), "task of this driver": samples(fifo)},
            )
        ],
    )


async def _through_fifo(setting: Setting) -> float:
    job = setting.driver.task("writer")
    paths = [job.alloc.fifo(job.config.name, stream) for stream in ("stdout", "stderr")]
    # The open never waits for a writer, and the first read waits in `_drain`.
    out, err = (os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC) for path in paths)
    try:
        reading = asyncio.create_task(asyncio.to_thread(_drain, out))
        config = {"image": setting.image, "command": "/bin/sh", "args": ["-c", f"exec {_WRITE}"]}
        await setting.driver.session.start(job.config, config)
        spent = await reading
        await setting.driver.session.wait(job.id)
        await setting.driver.session.destroy(job.id)
    finally:
        os.close(out)
        os.close(err)
    return spent


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
