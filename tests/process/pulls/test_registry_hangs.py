"""Tests of a hanging registry: the error has name and URL, comes in time, and nothing waits on."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from containerd.watchdog import Watchdog, waiting
from proto.errors import Code, DriverError
from tests.support.fakes.stage import Stage
from tests.support.plugin.driver import Job
from tests.support.registries import images
from tests.support.registries.pullers import pullers
from tests.support.registries.raw_server import RawServer
from tests.support.waiting import slowed, until

OK = b"HTTP/1.1 200 OK\r\n"
IMAGE = images.build([images.layer({"hello": b"x" * 100_000})])
BIG = max(IMAGE.blobs, key=lambda digest: len(IMAGE.blobs[digest]))
Drip = Callable[[Iterable[bytes]], Iterable[bytes]]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Yields a plugin with a limit of a second for a silent registry."""
    directory = tmp_path_factory.mktemp("stage")
    config: dict[str, Any] = {
        "pull_activity_timeout": "1s",
        "registry_config_path": str(directory / "hosts"),
    }
    with Stage(directory, **config) as stage:
        yield stage


@pytest.fixture
def stage(running: Stage) -> Iterator[Stage]:
    """Yields the plugin and checks that no task and no pull left anything."""
    yield running
    running.reset()
    running.containerd.metadata.ingests.clear()


def honest(body: bytes, kind: str = "application/octet-stream") -> bytes:
    return b"%sContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (
        OK,
        kind.encode(),
        len(body),
        body,
    )


def hanging(where: str, drip: Drip) -> Callable[[str], Iterable[bytes]]:
    """Builds a registry that answers up to a place and hangs at the place."""

    def answer(path: str) -> Iterable[bytes]:
        if "/manifests/" in path:
            whole = honest(IMAGE.body, images.MANIFEST)
            at = {"silence": 0, "head": 20, "manifest": len(whole) - 99}.get(where)
        else:
            digest = path.partition("?")[0].rpartition("/")[2]
            whole = honest(IMAGE.blobs[digest])
            at = len(whole) - 99 if where == "layer" and digest == BIG else None
        if at is None:
            return [whole]
        return itertools.chain([whole[:at]], drip([whole[at + i : at + i + 1] for i in range(99)]))

    return answer


@contextlib.contextmanager
def registry(where: str, *, drips: bool) -> Iterator[RawServer]:
    servers: list[RawServer] = []

    def drip(pieces: Iterable[bytes]) -> Iterable[bytes]:
        for piece in pieces:
            servers[0].pause(0.3 if drips else 300)
            yield piece

    with RawServer(hanging(where, drip)) as server:
        servers.append(server)
        yield server


async def refused(stage: Stage, job: Job, image: str) -> DriverError:
    async with asyncio.timeout(slowed(30)):
        with pytest.raises(DriverError) as failed:
            await stage.driver.start(job, image)
    return failed.value


@pytest.mark.parametrize("drips", [False, True], ids=["silent", "drips"])
@pytest.mark.parametrize("where", ["silence", "head", "manifest", "layer"])
async def test_a_registry_that_sends_next_to_nothing_is_named_long_before_the_pulls_time(
    stage: Stage, where: str, *, drips: bool
) -> None:
    with registry(where, drips=drips) as server:
        error = await refused(stage, stage.driver.task(), f"{server.host}/x/y:1")
    assert error.recoverable
    assert f"registry {server.host} does not answer" in str(error)
    path = f"blobs/{BIG}" if where == "layer" else "manifests/1"
    assert f"http://{server.host}/v2/x/y/{path}: nothing came for " in str(error)
    assert "check the registry and the network" in str(error)
    assert stage.containerd.leftovers() == []


async def test_a_tls_handshake_that_hangs_is_named(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        directory = stage.driver.state_dir.parent / "hosts" / host
        directory.mkdir(parents=True)
        (directory / "hosts.toml").write_text(f'server = "https://{host}"\n')
        error = await refused(stage, stage.driver.task(), f"{host}/x/y:1")
    assert error.recoverable
    assert f"https://{host}/v2/x/y/manifests/1" in str(error)


async def test_a_mirror_that_is_silent_leaves_the_image_to_the_next_one(stage: Stage) -> None:
    with registry("layer", drips=False) as silent, registry("", drips=False) as good:
        directory = stage.driver.state_dir.parent / "hosts" / good.host
        directory.mkdir(parents=True)
        (directory / "hosts.toml").write_text(
            f'server = "http://{good.host}"\n[host."http://{silent.host}"]\n'
        )
        error = await refused(stage, stage.driver.task(), f"{good.host}/x/y:1")
        assert [path for path in good.paths if BIG in path]
    assert "does not answer" not in str(error)  # no task could run the image


async def test_a_pull_that_waits_says_for_what_and_ends_at_once_with_its_task(stage: Stage) -> None:
    job = stage.driver.task()
    told: list[str] = []

    async def listen() -> None:
        async for event in stage.session.events():
            told.append(event.message)  # noqa: PERF401 - the list is read meanwhile

    listening = asyncio.create_task(listen())
    with registry("silence", drips=False) as server:
        starting = asyncio.create_task(stage.driver.start(job, f"{server.host}/x/y:1"))
        await until(lambda: server.paths or starting.done(), 20, "the registry is not asked")
        await stage.session.stop(job.id)
        assert "the start was cancelled" in str(await stage.refusal(starting))
        await until(lambda: not pullers(stage.session.pid), 20, "a puller goes on")
    listening.cancel()
    assert "Downloading image" in told


# --- the watchdog itself


def watchdog(told: list[str], limit_s: float = 10, timeout_s: float = 100) -> Watchdog:
    return Watchdog(limit_s, timeout_s, told.append, lambda _: None)


def looked(dog: Watchdog, after_s: float) -> DriverError | None:
    return dog.check(time.monotonic() + after_s)


def test_what_is_waited_for_is_told_and_then_given_up_in_its_own_words() -> None:
    told: list[str] = []
    dog = watchdog(told)
    with waiting("nobody answers", "https://a/b", "look at it"):
        assert looked(dog, 1) is None
        assert told == []
        assert looked(dog, 5) is None
        assert told == ["https://a/b for 5 s"]
        error = looked(dog, 11)
    assert str(error) == "nobody answers: https://a/b: nothing came for 11 s (look at it)"
    assert error is not None
    assert (error.code, error.recoverable) == (Code.TIMEOUT, True)
    assert looked(dog, 50) is None


def test_who_lives_is_waited_for_to_the_end_of_the_pulls_time() -> None:
    lives = [True, True, False]
    dog = watchdog([])
    with waiting("it is stuck", "work", is_alive=lambda: lives.pop(0)):
        assert looked(dog, 11) is None
        assert looked(dog, 20) is None
        assert len(lives) == 2
        assert looked(dog, 22) is None
        assert str(looked(dog, 33)) == "it is stuck: work: nothing came for 33 s"
    with waiting("it is stuck", "work", is_alive=lambda: True):
        late = looked(dog, 101)
    assert "the pull did not end within 100 s, waiting for work for 101 s" in str(late)
    assert "image_pull_timeout" in str(late)
