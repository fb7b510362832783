"""The plugin's ends of a task's logs: open during a removal, open for a failed start's readers."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from actors.model.nomad import TaskConfig
from actors.provision.log_ends import LogEnds, end_readers
from tests.support.waiting import slowed, until
from tests.support.workers.open_fifos import holders
from tests.support.workers.peers import LogReader


@pytest.fixture
def fifos(tmp_path: Path) -> list[Path]:
    """Creates a task's two FIFOs."""
    paths = [tmp_path / "alloc" / "logs" / name for name in ("out", "err")]
    paths[0].parent.mkdir(parents=True)
    for path in paths:
        os.mkfifo(path)
    return paths


def task(out: Path | str, err: Path | str) -> TaskConfig:
    return TaskConfig(
        id="a/t/1", name="t", alloc_id="a", stdout_path=str(out), stderr_path=str(err)
    )


def test_a_reader_sees_no_end_while_the_ends_are_held(fifos: list[Path]) -> None:
    ends = LogEnds(task(*fifos))
    ends.hold()
    out = LogReader(fifos[0])
    assert out.opened.wait(slowed(10))
    old = os.open(fifos[0], os.O_WRONLY)
    os.write(old, b"old\n")
    os.close(old)
    new = os.open(fifos[0], os.O_WRONLY)
    ends.close()
    os.write(new, b"new\n")
    os.close(new)
    assert out.finish() == b"old\nnew\n"


def test_ends_that_are_closed_are_not_held_again(fifos: list[Path]) -> None:
    ends = LogEnds(task(*fifos))
    ends.close()
    ends.hold()
    with pytest.raises(OSError, match="No such device"):
        os.open(fifos[0], os.O_WRONLY | os.O_NONBLOCK)


async def test_readers_that_wait_see_the_end_of_a_start_that_failed(fifos: list[Path]) -> None:
    readers = [LogReader(path) for path in fifos]
    await end_readers(task(*fifos))
    assert [reader.finish() for reader in readers] == [b"", b""]


async def test_a_reader_that_comes_a_moment_late_sees_the_end_too(fifos: list[Path]) -> None:
    ending = asyncio.create_task(end_readers(task(*fifos)))
    # The plugin holds both ends open: no reader has come yet.
    await until(lambda: holders(fifos[1], os.O_RDWR, [os.getpid()]), 10, "nobody holds it")
    readers = [LogReader(path) for path in fifos]
    await asyncio.to_thread(readers[1].opened.wait, 10)
    await ending
    assert readers[1].finish() == b""


async def test_a_running_tasks_log_goes_on(fifos: list[Path]) -> None:
    out = LogReader(fifos[0])
    shim = os.open(fifos[0], os.O_WRONLY)
    await end_readers(task(fifos[0], fifos[0]))
    os.write(shim, b"more\n")
    os.close(shim)
    assert out.finish() == b"more\n"


@pytest.mark.parametrize("path", ["", "/dev/null", "{}/none", "{}/file", "{}/link"])
async def test_what_is_no_fifo_is_left_alone(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("text")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    wanted = task(path.format(tmp_path), path.format(tmp_path))
    await end_readers(wanted)
    ends = LogEnds(wanted)
    ends.hold()
    ends.close()
    assert (tmp_path / "file").read_text() == "text"
