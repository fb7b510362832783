"""Connections to launcher and workers: each is closed, whatever becomes of the owner."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from actors.handles.handle import HandleState
from actors.lifecycle import recover
from actors.lifecycle.running import RunningTask
from actors.processes.launcher_link import LauncherLink
from actors.processes.worker_link import WorkerLink, connect
from proto import frames
from proto.errors import Code, DriverError
from tests.support.plugin.services import services
from tests.support.waiting import slowed, until
from workers import protocol

ANSWER_S = 10.0


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yields the driver's end of a connection, and the peer's end."""
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


class Listener:
    """A stand-in for a launcher or worker; without `answer` the listener only reads."""

    def __init__(self, answer: frames.Frame | None) -> None:
        self.asked = asyncio.Event()
        self.ended = asyncio.Event()
        self._answer = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves a connection until its end."""
        while await reader.read(65536):
            self.asked.set()
            if self._answer is not None:
                writer.write(frames.encode(self._answer))
        self.ended.set()
        writer.close()


@asynccontextmanager
async def listening(path: Path, answer: frames.Frame | None = None) -> AsyncIterator[Listener]:
    """Yields a listener, and checks at the end that the driver has closed its end."""
    listener = Listener(answer)
    async with await asyncio.start_unix_server(listener.serve, path):
        yield listener
        await asyncio.wait_for(listener.ended.wait(), slowed(ANSWER_S))


async def test_a_link_without_an_owner_goes_on_until_its_peer_ends(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair

    async def forgotten() -> asyncio.BaseTransport:
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        WorkerLink(reader, writer)
        await asyncio.sleep(0)  # the link's reader starts
        return writer.transport

    transport = await forgotten()
    gc.collect()
    theirs.close()
    await until(transport.is_closing, ANSWER_S, "the link does not see its peer's end")


def test_a_link_of_a_loop_that_ends_at_once_is_closed(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    async def story() -> asyncio.BaseTransport:
        reader, writer = await asyncio.open_unix_connection(sock=pair[0])
        WorkerLink(reader, writer)
        return writer.transport

    assert asyncio.run(story()).is_closing()


async def test_a_link_that_fails_over_an_event_is_closed_and_says_so(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    heard: list[frames.Frame | None] = []

    def listener(frame: frames.Frame | None) -> None:
        heard.append(frame)
        if frame is not None:
            raise ValueError("no such event")

    link = WorkerLink(*await asyncio.open_unix_connection(sock=ours))
    link.listen(listener)
    theirs.sendall(frames.encode({"event": "strange"}))
    with pytest.raises(DriverError) as failed:
        await link.request(protocol.HELLO)
    assert failed.value.code is Code.UNAVAILABLE
    assert heard == [{"event": "strange"}, None]
    with pytest.raises(ValueError, match="no such event"):
        await link._pump


async def test_a_request_of_a_link_that_is_closed_meanwhile_fails_at_once(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    link = WorkerLink(*await asyncio.open_unix_connection(sock=pair[0]))
    asking = asyncio.create_task(link.request(protocol.HELLO, ANSWER_S * 10))
    await asyncio.sleep(0)
    await link.close()
    with pytest.raises(DriverError) as failed:
        await asyncio.wait_for(asking, slowed(ANSWER_S))
    assert failed.value.code is Code.UNAVAILABLE


Fork = Callable[[LauncherLink, Listener], Awaitable[object]]


async def _unspeakable(link: LauncherLink, listener: Listener) -> None:
    with pytest.raises(DriverError) as failed:
        await link.fork(protocol.WorkerSpec(name="t", dir="/" * (frames.MAX_FRAME_BYTES + 1)))
    assert failed.value.code is Code.INVALID


async def _cancelled(link: LauncherLink, listener: Listener) -> None:
    forking = asyncio.create_task(link.fork(protocol.WorkerSpec(name="t", dir="/nowhere")))
    await listener.asked.wait()
    forking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await forking


@pytest.mark.parametrize("fork", [_unspeakable, _cancelled])
async def test_a_fork_that_fails_leaves_no_connection(tmp_path: Path, fork: Fork) -> None:
    async with listening(tmp_path / protocol.LAUNCHER_SOCKET) as listener:
        await fork(LauncherLink(tmp_path), listener)


async def test_a_fork_that_is_refused_leaves_no_connection(tmp_path: Path) -> None:
    refusal = DriverError("no", code=Code.PRECONDITION).to_wire()
    answer: frames.Frame = {"ok": False, "event": protocol.FAILED, "error": refusal}
    async with listening(tmp_path / protocol.LAUNCHER_SOCKET, answer):
        with pytest.raises(DriverError, match="no"):
            await LauncherLink(tmp_path).fork(protocol.WorkerSpec(name="t", dir="/nowhere"))


async def test_a_recovery_that_fails_leaves_no_connection_to_the_worker(tmp_path: Path) -> None:
    refusal = DriverError("the worker is ill", code=Code.INTERNAL).to_wire()
    task = RunningTask(
        services=services(),
        state=_state(),
        task_id="a/web/1",
        alloc_id="a",
        directory=tmp_path,
        link=None,
    )
    async with listening(
        tmp_path / protocol.CONTROL_SOCKET, {"re": 1, "ok": False, "error": refusal}
    ):
        with pytest.raises(DriverError, match="the worker is ill"):
            await recover.attach(task)


async def test_a_link_that_is_dropped_fails_its_next_request(tmp_path: Path) -> None:
    async with listening(tmp_path / protocol.CONTROL_SOCKET):
        link = await connect(tmp_path)
        link.drop()
        with pytest.raises(DriverError) as failed:
            await link.request(protocol.HELLO)
        assert failed.value.code is Code.UNAVAILABLE


def _state() -> HandleState:
    return HandleState(
        container_id="t",
        containerd_namespace="nomad",
        snapshotter="overlayfs",
        boot_id="boot",
        started_at_ns=1,
        pid=1,
        stdout_path="",
        stderr_path="",
        stop_signal="",
        image="",
    )
