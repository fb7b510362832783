"""Tests of a containerd that answers no request: errors are bounded, name containerd, and end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable

import pytest

from actors.model.nomad import Health, TaskState
from containerd.api import deadlines, methods
from proto.errors import Code, DriverError
from tests.support.fakes.stage import IMAGE, Stage
from tests.support.waiting import slowed, until
from tests.support.workers.launcher import worker_pids

# Far more than an answer takes, far less than minutes.
BOUND_S = 45


async def failure(work: Awaitable[object]) -> DriverError:
    """Returns the error text for a person, in bounded time."""
    async with asyncio.timeout(slowed(BOUND_S)):
        with pytest.raises(DriverError) as failed:
            await work
    return failed.value


async def unhealthy(stage: Stage) -> str:
    async with contextlib.aclosing(stage.session.fingerprints()) as looks:
        async for look in looks:
            if look.health is Health.UNHEALTHY:
                return look.description
    raise AssertionError("no more fingerprints")


async def test_what_needs_containerd_fails_by_name_and_what_does_not_goes_on(stage: Stage) -> None:
    go = stage.driver.state_dir / "go"
    names = ("short", "long", "forced", "busy", "stuck")
    short, long, forced, busy, stuck = (stage.driver.task(name) for name in names)
    await stage.start(short, f"until test -e {go}; do sleep 0.05; done; exit 5")
    for job in (long, forced, busy):
        await stage.start(job)
    creating = stage.containerd.hang(methods.TASK_CREATE)
    starting = asyncio.create_task(failure(stage.start(stuck)))
    await until(lambda: creating.calls or starting.done(), 20, "no task is created")
    looking = asyncio.create_task(unhealthy(stage))
    stage.containerd.silent()

    # Worker and shim do not need containerd.
    go.touch()
    assert (await stage.session.wait(short.id)).exit_code == 5
    await stage.session.stop(long.id)
    assert (await stage.session.wait(long.id)).signal == signal.SIGTERM
    waiting = asyncio.create_task(stage.session.wait(forced.id))
    assert (await stage.session.inspect(busy.id)).state is TaskState.RUNNING

    fresh, asked, destroyed, _ = await asyncio.gather(
        failure(stage.start(stage.driver.task("fresh"))),
        failure(stage.session.exec(busy.id, ["/bin/true"])),
        failure(stage.session.destroy(short.id)),
        failure(stage.session.destroy(forced.id)),
    )
    silence_of = f"{stage.containerd.address} accepted the request and did not answer"
    assert silence_of in str(fresh)
    assert silence_of in str(asked)
    assert silence_of in await looking
    assert f"left of {short.container}: task, snapshot, container" in str(destroyed)
    assert "journalctl -u containerd" in str(destroyed)
    # The shim ends the task on request, whatever containerd knows of the task.
    assert (await waiting).signal == signal.SIGKILL
    error = await starting
    assert error.recoverable
    assert "containerd takes requests and does not answer: asked to create the" in str(error)
    assert f"left of {stuck.container}: task, container, snapshot" in str(error)

    stage.containerd.faults.clear()
    assert (await stage.session.exec(busy.id, ["/bin/echo", "on"])).stdout == b"on\n"
    for job in (long, busy):
        await stage.session.destroy(job.id)
    # The next start of the same task removes the leftovers of a start.
    await stage.session.start(stuck.config, {"image": IMAGE, "command": "/bin/true"})
    await stage.session.destroy(stuck.id)
    # The driver removes the leftovers of a destroy by itself.
    await until(lambda: not stage.containerd.leftovers(), BOUND_S, "nobody tries again")
    await until(lambda: not worker_pids(stage.driver.state_dir), BOUND_S, "workers are left")


# --- the bounds themselves


async def _never() -> None:
    await asyncio.Event().wait()


async def _mute() -> None:
    raise DriverError("no answer", code=Code.TIMEOUT)


async def _away() -> None:
    raise DriverError("nobody there", code=Code.UNAVAILABLE)


async def _fine() -> None:
    return


async def test_a_long_call_is_given_up_when_containerd_does_not_even_tell_its_version() -> None:
    with pytest.raises(DriverError, match=r"asked to wait, and then for its version") as failed:
        await deadlines.probed(_never(), _mute, "wait", 0.01)
    assert failed.value.code is Code.TIMEOUT


@pytest.mark.parametrize("lives", [_fine, _away], ids=["answers", "breaks"])
async def test_a_long_call_is_waited_for_while_containerd_lives(lives: object) -> None:
    asked: list[int] = []
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def look() -> None:
        asked.append(1)
        if len(asked) == 3:
            answer.set_result("done")
        await lives()  # type: ignore[operator]

    assert await deadlines.probed(answer, look, "wait", 0.01) == "done"


def test_all_calls_of_a_clean_up_share_one_time_and_each_has_a_moment() -> None:
    assert deadlines.shortened(60) == 60
    assert deadlines.shortened(None) is None
    with deadlines.within(5):
        assert 0 < (deadlines.shortened(60) or 0) <= 5
        assert 0 < (deadlines.shortened(None) or 0) <= 5
        assert deadlines.shortened(0.1) == 0.1
        with deadlines.within(100):
            assert 0 < (deadlines.shortened(60) or 0) <= 5
    with deadlines.within(-time.monotonic()):
        assert 0 < (deadlines.shortened(60) or 0) < 1
