"""Tests of commands that cannot run in a task, under each runtime: a short, non-empty error."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from actors.model.nomad import ExecInput
from proto.errors import DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.needs import need_program
from tests.support.plugin.agent_session import AgentSession
from tests.support.plugin.driver import Driver, Job, launched
from tests.support.waiting import until

pytestmark = pytest.mark.containerd

# Nomad's close frame has 123 bytes; this is the rest beside gRPC's own words.
ROOM = 123 - len("rpc error: code = Unknown desc = ")
SETUP = "touch /local/plain; mkdir -p /w/d; cd /w/d; touch /local/ready; exec sleep 600"
REFUSED = {
    "absent": (["/no/such/program"], "cannot run /no/such/program: no such file or directory"),
    "no name": (["tool"], "cannot run tool: executable file not found in $PATH"),
    "long": ([f"/{'deep/' * 60}tool"], "deep/tool: no such file or directory"),
    "plain file": (["/local/plain"], "cannot run /local/plain: permission denied"),
    # "permission denied", from runc 1.5 on "is a directory".
    "directory": (["/local"], "cannot run /local: "),
}
RUNTIMES = pytest.mark.parametrize("runtime", ["runc", "crun", "runsc"])


async def _nothing() -> AsyncIterator[ExecInput]:
    """Returns without input: grpc.aio hides a refusal behind a write after the refusal."""
    for _ in ():
        yield ExecInput()


async def executed(
    session: AgentSession, job: Job, command: Sequence[str]
) -> tuple[bytes, bytes, int | None]:
    """Runs a command and returns both outputs and the exit code."""
    out, err, code = b"", b"", None
    async for output in session.exec_streaming(job.id, command, _nothing()):
        out, err = out + output.stdout, err + output.stderr
        code = output.exit.exit_code if output.exit else code
    return out, err, code


async def ready(driver: Driver, image: str, runtime: str) -> Job:
    """Starts a task in a working directory that the task has made."""
    job = driver.task()
    await driver.start(job, image, SETUP, runtime=runtime, cwd="/w/d")
    mark = job.alloc.path / "t" / "local" / "ready"
    await until(mark.exists, 30, "the task does not come to its sleep")
    return job


@RUNTIMES
async def test_a_command_that_cannot_be_run_is_told_in_a_few_words(
    runtimes_driver: Driver, busybox_image: str, runtime: str
) -> None:
    need_program(runtime)
    async with launched(runtimes_driver) as session:
        job = await ready(runtimes_driver, busybox_image, runtime)
        for command, words in REFUSED.values():
            with pytest.raises(DriverError) as refused:
                await executed(session, job, command)
            assert words in str(refused.value)
            assert len(str(refused.value).encode()) <= ROOM
        assert await executed(session, job, ["echo", "on"]) == (b"on\n", b"", 0)
        await runtimes_driver.end(job)


@RUNTIMES
async def test_a_command_in_a_paused_task_is_refused_in_a_few_words(
    runtimes_driver: Driver, busybox_image: str, runtime: str
) -> None:
    need_program(runtime)
    daemon = runtimes_driver.containerd
    assert isinstance(daemon, ContainerdDaemon)
    async with launched(runtimes_driver) as session:
        job = await ready(runtimes_driver, busybox_image, runtime)
        daemon.ctr("tasks", "pause", job.container)
        try:
            with pytest.raises(DriverError, match="the task is paused") as refused:
                await executed(session, job, ["echo", "hello"])
            assert len(str(refused.value).encode()) <= ROOM
        finally:
            daemon.ctr("tasks", "resume", job.container)
        await runtimes_driver.end(job)


@RUNTIMES
async def test_a_command_whose_directory_is_gone_runs_in_the_root_and_says_so(
    runtimes_driver: Driver, busybox_image: str, runtime: str
) -> None:
    need_program(runtime)
    async with launched(runtimes_driver) as session:
        job = await ready(runtimes_driver, busybox_image, runtime)
        assert (await executed(session, job, ["rm", "-r", "/w"]))[2] == 0
        told = b"containerd-driver: /w/d is gone, so the command runs in /\n"
        assert await executed(session, job, ["pwd"]) == (b"/\n", told, 0)
        done = await session.exec(job.id, ["sh", "-c", "pwd; exit 3"])
        assert (done.stdout, done.stderr, done.exit.exit_code) == (b"/\n", told, 3)
        left = list((runtimes_driver.state_dir / "tasks" / job.container).glob("exec-*"))
        assert left == []
        await runtimes_driver.end(job)
