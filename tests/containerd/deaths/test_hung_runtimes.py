"""Tests of a runtime or a shim that hangs while a task ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containerd.deaths.test_shim_deaths import shim_of
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.needs import need_containerd
from tests.support.plugin.driver import Driver, launched
from tests.support.waiting import until

pytestmark = pytest.mark.containerd

# An exec hangs while the file `hang` exists, and writes its pid.
RUNC = """\
#!/bin/sh
for word in "$@"; do
  [ "$word" != exec ] || [ ! -e {folder}/hang ] || {{ echo $$ >{folder}/hung; exec sleep 600; }}
done
exec {runc} "$@"
"""
ENDS = "until [ -e /local/end ]; do sleep 0.05; done; exit 7"
TELLS_EXIT_CODES = (6, 15)
"""The first kernel that tells the exit code of a process whose parent has read the code."""


def kernel() -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with a runc that may hang."""
    folder = tmp_path_factory.mktemp("runc")
    program = folder / "runc"
    program.write_text(RUNC.format(folder=folder, runc=shutil.which("runc")))
    program.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def hanging_daemon(programs: Path) -> Iterator[ContainerdDaemon]:
    need_containerd()
    with ContainerdDaemon(path=str(programs)) as daemon:
        yield daemon


@pytest.fixture
def hanging(hanging_daemon: ContainerdDaemon, tmp_path: Path) -> Iterator[Driver]:
    """Yields a driver whose runc may hang; checks that no task leaves an object."""
    made = Driver(hanging_daemon, tmp_path)
    try:
        yield made
        made.wait_clean()
    finally:
        made.close()


@pytest.mark.skipif(
    kernel() < TELLS_EXIT_CODES, reason="the kernel does not tell the codes of reaped processes"
)
async def test_a_task_that_ends_beside_a_hung_command_shows_its_exit_and_can_be_removed(
    hanging: Driver, programs: Path, busybox_image: str
) -> None:
    async with launched(hanging) as session:
        job = hanging.task()
        await hanging.start(job, busybox_image, ENDS)
        (programs / "hang").touch()
        command = asyncio.create_task(session.exec(job.id, ["true"]))
        hung = programs / "hung"
        await until(lambda: hung.exists() and hung.read_text(), 20, "no command hangs")
        (job.alloc.path / "t" / "local" / "end").touch()
        result = await session.wait(job.id)
        assert (result.exit_code, result.error) == (7, "")
        (programs / "hang").unlink()
        await hanging.end(job)
        await asyncio.gather(command, return_exceptions=True)
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(hung.read_text()), signal.SIGKILL)


async def test_the_exit_code_below_a_hung_shim_is_kept(hanging: Driver, busybox_image: str) -> None:
    async with launched(hanging) as session:
        job = hanging.task()
        await hanging.start(job, busybox_image, ENDS)
        os.kill(shim_of(hanging.daemon, job.container), signal.SIGSTOP)
        (job.alloc.path / "t" / "local" / "end").touch()
        result = await session.wait(job.id)
        assert (result.exit_code, result.error) == (7, "")
        await hanging.end(job)


async def test_a_task_whose_shim_hangs_is_killed_by_a_stop_and_removed(
    hanging: Driver, busybox_image: str
) -> None:
    async with launched(hanging) as session:
        job = hanging.task()
        await hanging.start(job, busybox_image, "trap '' TERM; while :; do sleep 0.05; done")
        os.kill(shim_of(hanging.daemon, job.container), signal.SIGSTOP)
        await session.stop(job.id, timeout_s=0.5)
        result = await session.wait(job.id)
        assert (result.exit_code, result.signal, result.error) == (137, 9, "")
        await hanging.end(job)
