"""Silent file servers: an error names the server, and no thread of the plugin stays blocked."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actors.blocking import file_servers
from actors.blocking.threads import Threads
from containerd import syscalls
from proto.errors import Code, DriverError
from tests.support.kernel.file_server import FileServer
from tests.support.waiting import until

Silence = Callable[[FileServer], None]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    with FileServer(tmp_path / "shared files") as running:
        yield running


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens all waits on a file server."""
    monkeypatch.setattr(file_servers, "REPORT_AFTER_S", 0.1)
    monkeypatch.setattr(file_servers, "GIVE_UP_AFTER_S", 0.5)


def look(path: Path, what: str = "mounts") -> Callable[[], bool]:
    def work() -> bool:
        file_servers.visit(str(path), what)
        return path.is_dir()

    return work


async def refusal(work: Callable[[], object]) -> str:
    with pytest.raises(DriverError) as refused:
        await file_servers.run_probed(work)
    assert refused.value.code is Code.UNAVAILABLE
    assert refused.value.recoverable
    return str(refused.value)


def threads() -> set[str]:
    """Returns the status of each thread of the test process in uninterruptible sleep."""
    states = (path.read_text() for path in Path("/proc/self/task").glob("*/status"))
    return {text for text in states if "State:\tD" in text}


async def test_mounts_with_odd_names_keep_no_look_from_its_work(tmp_path: Path) -> None:
    """Mounts at a path with odd characters, as a user of the node may with FUSE."""
    odd = tmp_path / "a\r\x0b\x1c\x85\u2028b"
    odd.mkdir()
    with FileServer(odd) as server:
        assert await file_servers.run_probed(look(tmp_path))
        assert await file_servers.run_probed(look(server.point / "data"))


async def test_one_that_answers_is_looked_at(server: FileServer) -> None:
    assert await file_servers.run_probed(look(server.point / "data"))


@pytest.mark.parametrize("silence", [FileServer.stop, FileServer.swallow])
async def test_one_that_does_not_is_refused_by_name_and_holds_no_thread(
    server: FileServer, silence: Silence
) -> None:
    silence(server)
    said = await asyncio.gather(*(refusal(look(server.point / str(number))) for number in range(6)))
    for number, text in enumerate(said):
        assert f"mounts: '{server.point}/{number}' cannot be used" in text
        assert f"the file server of {server.point} (fuse, silent-server)" in text
    assert threads() == set()
    (known,) = file_servers.silent()
    assert known.point == str(server.point)
    # A further call does not wait, and starts no second child process.
    await asyncio.wait_for(refusal(look(server.point / "more")), 0.25)
    server.answer()
    await until(lambda: not file_servers.silent(), 10)
    assert await file_servers.run_probed(look(server.point / "data"))


async def test_links_to_it_are_found_out(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "direct").symlink_to(server.point / "data")
    (tmp_path / "by way of").symlink_to("./direct")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/up").symlink_to("../by way of")
    server.stop()
    for path in ("direct", "by way of/deep", "home/up", "home/../direct"):
        assert str(server.point) in await refusal(look(tmp_path / path))
    server.answer()


async def test_links_below_a_root_are_not_followed_and_mounts_there_are_found_out(
    server: FileServer, tmp_path: Path
) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "local/x").symlink_to(server.point)

    def below(path: str) -> Callable[[], None]:
        return lambda: file_servers.visit(path, "mounts", root=str(tmp_path))

    server.stop()
    await file_servers.run_probed(below("local/x/y"))
    assert str(server.point) in await refusal(below(f"{server.point.name}/y"))
    server.answer()


async def test_whoever_waits_is_told(server: FileServer) -> None:
    told: list[str] = []
    server.stop()
    with pytest.raises(DriverError):
        await file_servers.run_probed(look(server.point), told.append)
    server.answer()
    assert len(told) == 1
    assert str(server.point) in told[0]


async def test_what_is_mounted_there_instead_is_not_taken_for_the_silent_one(
    server: FileServer, tmp_path: Path
) -> None:
    server.stop()
    await refusal(look(server.point / "data"))
    syscalls.unmount(str(server.point))
    with FileServer(server.point):
        assert await file_servers.run_probed(look(server.point / "data"))
    server.answer()


async def test_no_path_at_all_costs_nothing_and_outside_of_a_look_nothing_is_asked(
    server: FileServer,
) -> None:
    server.stop()
    file_servers.visit(str(server.point), "mounts")
    assert await file_servers.run_probed(lambda: 7) == 7
    server.answer()


async def test_a_thread_that_stands_still_is_left_behind_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(file_servers, "LATE_S", 0.2)
    stuck = threading.Event()
    with pytest.raises(DriverError, match="the allocation /a cannot be used"):
        await file_servers.in_time(lambda: stuck.wait(20), lambda: "the allocation /a")
    stuck.set()


def use_the_pool() -> None:
    """Gives the running event loop the plugin's threads; the loop's end waits for the threads."""
    asyncio.get_running_loop().set_default_executor(Threads())


async def test_the_pool_works_on_beside_threads_that_stand_still() -> None:
    stuck = threading.Event()
    use_the_pool()
    waiting = [asyncio.ensure_future(asyncio.to_thread(stuck.wait, 20)) for _ in range(9)]
    assert await asyncio.to_thread(os.getpid) == os.getpid()
    assert await asyncio.to_thread(lambda: 7) == 7
    assert not any(one.done() for one in waiting)
    stuck.set()
    assert await asyncio.gather(*waiting) == [True] * 9


async def test_a_pool_that_is_busy_and_moves_on_gets_no_more_threads() -> None:
    use_the_pool()
    names = await asyncio.gather(
        *(asyncio.to_thread(lambda: threading.current_thread().name) for _ in range(200))
    )
    assert len(set(names)) <= 4
