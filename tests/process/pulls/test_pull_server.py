"""Tests of the pull server: real pullers, without containerd; every pull fails at a registry."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.images.pullers import Pullers
from actors.model.nomad import TaskConfig
from actors.model.settings import TaskOptions
from actors.processes import child_process
from containerd.pull.protocol import PullRequest
from containerd.pull.pull_server import PullServer
from containerd.registry.credentials import Credentials
from plugin.host.run.allocdir import AllocDir
from proto.errors import Code, DriverError
from tests.support.fakes.containerd import FakeContainerd
from tests.support.plugin.gateways import configured, settings
from tests.support.plugin.plugin_dir import ROOT
from tests.support.registries.pullers import pullers, servers
from tests.support.registries.recording_server import Answer, RecordingServer, Request
from tests.support.waiting import slowed, until

PASSWORD = "correct-horse-battery"
HERE = os.getpid()


class Registry(RecordingServer):
    """A registry without images; `hold` delays the answers."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        super().__init__(self._refuse)

    def _refuse(self, _: Request) -> Answer:
        self.open.wait(60)
        return Answer(404)

    def close(self) -> None:
        """Ends the server, and all waits."""
        self.open.set()
        super().close()


@pytest.fixture
def registry() -> Iterator[Registry]:
    """Yields a registry of the test's own."""
    with Registry() as running:
        yield running


async def pull(pulls: Pullers, registry: Registry, password: str = "") -> DriverError:
    """Pulls an image, and returns the failure."""
    with pytest.raises(DriverError) as failed:
        await pulls.run(request_of(registry, password), str)
    return failed.value


def request_of(registry: Registry, password: str = "") -> PullRequest:
    """Builds a request for an image of the registry."""
    credentials = Credentials(username="me", password=password, server_address=registry.host)
    return PullRequest(
        reference=f"{registry.host}/x:1",
        address="/nowhere/containerd.sock",
        namespace="n",
        snapshotter="overlayfs",
        lease="l",
        platform="",
        timeout_s=60,
        silence_s=30,
        labels={},
        credentials=(credentials,) if password else (),
    )


async def held(pulls: Pullers, registry: Registry) -> asyncio.Task[DriverError]:
    """Begins a pull that waits for the registry."""
    seen = len(registry.requests)
    registry.open.clear()
    running = asyncio.create_task(pull(pulls, registry))
    await until(lambda: len(registry.requests) > seen, 30, "the registry is not asked")
    return running


async def gone(pids: list[int]) -> None:
    """Waits until no process of the list remains."""
    await until(lambda: not [pid for pid in pids if Path(f"/proc/{pid}").exists()], 20)


async def refused(pulls: Pullers, registry: Registry) -> None:
    """Checks that a pull reaches the registry and gets its answer."""
    registry.open.set()
    assert (await pull(pulls, registry)).code is Code.NOT_FOUND


async def test_pulls_share_a_server_and_each_has_a_process_of_its_own(registry: Registry) -> None:
    pulls = Pullers()
    await refused(pulls, registry)
    (server,) = servers(HERE)
    assert re.search(r"^Threads:\s1$", Path(f"/proc/{server}/status").read_text(), re.MULTILINE)
    both = [await held(pulls, registry) for _ in range(2)]
    assert servers(HERE) == [server]
    assert len(set(pullers(HERE))) == 2
    registry.open.set()
    assert {error.code for error in await asyncio.gather(*both)} == {Code.NOT_FOUND}
    assert pullers(HERE) == []
    await pulls.close()
    assert servers(HERE) == []


async def test_the_server_never_has_a_password(registry: Registry) -> None:
    pulls = Pullers()
    await pull(pulls, registry, PASSWORD)
    (server,) = servers(HERE)
    assert b"nomad-driver-containerd" in memory(server)
    assert PASSWORD.encode() not in memory(server)
    await pulls.close()


def memory(pid: int) -> bytes:
    """Returns the private writable memory of a process."""
    parts = []
    with Path(f"/proc/{pid}/mem").open("rb", 0) as file:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            begin, end = (int(text, 16) for text in line.split()[0].split("-"))
            if line.split()[1].startswith("rw"):
                file.seek(begin)
                parts.append(file.read(end - begin))
    return b"".join(parts)


async def test_a_killed_puller_fails_its_pull_alone(registry: Registry) -> None:
    pulls = Pullers()
    first = await held(pulls, registry)
    (puller,) = pullers(HERE)
    second = await held(pulls, registry)
    os.kill(puller, signal.SIGKILL)
    error = await first
    assert "the puller process ended without an answer: killed by signal 9" in str(error)
    assert (error.recoverable, error.code) == (True, Code.UNAVAILABLE)
    registry.open.set()
    assert (await second).code is Code.NOT_FOUND
    await pulls.close()


async def test_a_killed_server_fails_no_pull_and_is_replaced(registry: Registry) -> None:
    pulls = Pullers()
    running = await held(pulls, registry)
    (server,) = servers(HERE)
    os.kill(server, signal.SIGKILL)
    await gone([server])
    await refused(pulls, registry)
    assert servers(HERE) != [server]
    assert (await running).code is Code.NOT_FOUND
    await pulls.close()


async def test_a_stuck_server_is_replaced(registry: Registry) -> None:
    pulls = Pullers(begin_s=2.0)
    await refused(pulls, registry)
    (server,) = servers(HERE)
    os.kill(server, signal.SIGSTOP)
    await refused(pulls, registry)
    assert servers(HERE) != [server]
    await pulls.close()


async def test_a_cancelled_pull_ends_its_puller_even_if_the_puller_is_stuck(
    registry: Registry,
) -> None:
    pulls = Pullers()
    for stops in (False, True):
        running = await held(pulls, registry)
        (puller,) = pullers(HERE)
        if stops:
            os.kill(puller, signal.SIGSTOP)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not Path(f"/proc/{puller}").exists()
    await refused(pulls, registry)
    await pulls.close()


async def test_a_cancelled_pull_keeps_no_connection_to_a_stuck_server(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.images.pullers._END_S", 0.2)
    pulls = Pullers()
    await refused(pulls, registry)
    (server,) = servers(HERE)
    running = await held(pulls, registry)
    (puller,) = pullers(HERE)
    amid = connections()
    for pid in (puller, server):
        os.kill(pid, signal.SIGSTOP)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until(lambda: connections() < amid, 20, "the connection to the puller stays open")
    for pid in (puller, server):
        os.kill(pid, signal.SIGCONT)
    await gone([puller])
    await pulls.close()


async def test_a_new_configuration_of_the_plugin_keeps_the_server(
    registry: Registry, tmp_path: Path
) -> None:
    alloc = AllocDir(tmp_path / "allocs", "a")
    alloc.build(["t"])
    task = TaskConfig(id="a/t/1", name="t", alloc_id="a", alloc_dir=str(alloc.path))
    options = TaskOptions(image=f"{registry.host}/x:1")
    seen = []
    with FakeContainerd() as containerd:
        async with configured(containerd, tmp_path / "state") as gateway:
            for silence_s in (10.0, 20.0):
                given = settings(containerd, tmp_path / "state")
                await gateway.configure(
                    dataclasses.replace(given, pull_activity_timeout_s=silence_s)
                )
                with pytest.raises(DriverError, match="Error in pulling image"):
                    await gateway.start_task(task, options)
                seen += servers(HERE)
            await gateway._pullers.close()
    assert len(registry.requests) >= 2
    assert len(seen) == 2
    assert len(set(seen)) == 1


def connections() -> int:
    """Returns the number of Unix sockets that this process holds."""
    lines = Path("/proc/net/unix").read_text().splitlines()[1:]
    known = {f"socket:[{line.split()[6]}]" for line in lines}
    own = [
        str(place.readlink()) for place in Path("/proc/self/fd").iterdir() if os.path.lexists(place)
    ]
    return sum(link in known for link in own)


async def test_the_end_of_the_plugin_ends_server_and_pullers(registry: Registry) -> None:
    registry.open.clear()
    program = (
        f"import asyncio, sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from actors.images.pullers import Pullers\n"
        "from containerd.pull.protocol import PullRequest\n"
        f"asyncio.run(Pullers().run({request_of(registry)!r}, str))\n"
    )
    plugin = child_process.start([sys.executable, "-I", "-c", program])
    await until(lambda: pullers(plugin.pid), 30, "no puller begins")
    left = [*servers(plugin.pid), *pullers(plugin.pid)]
    child_process.forsake(plugin)
    await gone(left)


def test_a_server_without_a_pull_ends_after_its_idle_time() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        server = threading.Thread(target=PullServer(theirs, lambda: 0, 0.1).serve)
        server.start()
        server.join(slowed(20))
        assert not server.is_alive()
