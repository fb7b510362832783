"""The state directory: another user's directory is refused by name before any use."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actors.model.ownership import PLUGIN
from actors.orphans import peers
from actors.orphans.peers import Presence
from actors.processes.launcher_link import LauncherLink
from actors.processes.worker_link import connect_unix
from proto.errors import Code, DriverError
from tests.support.needs import need_root_here
from workers import private_directory, protocol

SOMEBODY = 12345


@pytest.fixture
def root() -> Iterator[Path]:
    """Creates a directory of root's, at a path without links."""
    need_root_here()
    with tempfile.TemporaryDirectory(prefix="place-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def refusal(place: Path, *, make: bool = True) -> str:
    with pytest.raises(DriverError) as refused:
        os.close(private_directory.opened(str(place), make=make))
    assert refused.value.code is Code.DENIED
    return str(refused.value)


def made_by(owner: int, directory: Path, mode: int = 0o700) -> Path:
    directory.mkdir()
    os.chown(directory, owner, owner)
    directory.chmod(mode)
    return directory


def test_a_directory_is_made_for_its_owner_alone(root: Path) -> None:
    os.close(private_directory.opened(str(root / "a/b/state"), make=True))
    assert stat.S_IMODE((root / "a/b/state").stat().st_mode) == 0o700
    assert stat.S_IMODE((root / "a/b").stat().st_mode) == 0o755


def test_one_that_others_may_only_read_becomes_private(root: Path) -> None:
    (root / "state").mkdir(mode=0o755)
    os.close(private_directory.opened(str(root / "state")))
    assert stat.S_IMODE((root / "state").stat().st_mode) == 0o700


def test_links_of_root_are_followed(root: Path) -> None:
    (root / "real").mkdir()
    (root / "link").symlink_to("../" + root.name + "/real")
    (root / "other").symlink_to(root / "link")
    os.close(private_directory.opened(str(root / "other/state"), make=True))
    assert (root / "real/state").is_dir()


@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_another_users_directory_is_refused_and_stays_as_it_is(root: Path, mode: int) -> None:
    theirs = made_by(SOMEBODY, root / "state", mode)
    assert f"{theirs} belongs to user {SOMEBODY}" in refusal(theirs)
    assert stat.S_IMODE(theirs.stat().st_mode) == mode


def test_a_directory_below_another_users_is_refused_and_not_made(root: Path) -> None:
    theirs = made_by(SOMEBODY, root / "home", 0o755)
    assert f"{theirs} belongs to user {SOMEBODY}" in refusal(theirs / "state")
    assert list(theirs.iterdir()) == []


@pytest.mark.parametrize("mode", [0o777, 0o757, 0o1777])
def test_one_that_everybody_may_write_to_is_refused(root: Path, mode: int) -> None:
    shared = made_by(0, root / "state", mode)
    assert f"users other than root may write to {shared}" in refusal(shared)
    assert stat.S_IMODE(shared.stat().st_mode) == mode


def test_one_whose_parent_everybody_may_write_to_is_refused(root: Path) -> None:
    shared = made_by(0, root / "shared", 0o777)
    (shared / "state").mkdir(mode=0o700)
    assert f"users other than root may write to {shared}" in refusal(shared / "state")


def test_a_group_that_is_not_roots_counts_as_others(root: Path) -> None:
    shared = made_by(0, root / "shared", 0o775)
    os.chown(shared, 0, SOMEBODY)
    assert str(shared) in refusal(shared / "state")
    os.chown(shared, 0, 0)
    os.close(private_directory.opened(str(shared / "state"), make=True))


def test_in_a_sticky_directory_what_is_roots_is_roots(root: Path) -> None:
    shared = made_by(0, root / "shared", 0o1777)
    os.close(private_directory.opened(str(shared / "state"), make=True))
    theirs = made_by(SOMEBODY, shared / "theirs")
    assert f"{theirs} belongs to user {SOMEBODY}" in refusal(theirs)


def test_a_link_that_another_user_put_there_is_refused_and_its_target_not_touched(
    root: Path,
) -> None:
    shared = made_by(0, root / "shared", 0o1777)
    target = made_by(0, root / "target", 0o755)
    (shared / "state").symlink_to(target)
    os.lchown(shared / "state", SOMEBODY, SOMEBODY)
    assert f"{shared}/state belongs to user {SOMEBODY}" in refusal(shared / "state")
    assert stat.S_IMODE(target.stat().st_mode) == 0o755
    assert list(target.iterdir()) == []


def test_links_in_a_circle_end(root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    with pytest.raises(OSError, match="a"):
        private_directory.opened(str(root / "a/state"), make=True)


def look(place: Path) -> None:
    peers.peers(place)


def arrive(place: Path) -> None:
    Presence(place, PLUGIN)


def ensure(place: Path) -> None:
    async def story() -> None:
        await LauncherLink(place).ensure()

    asyncio.run(story())


@pytest.mark.parametrize("use", [look, arrive, ensure])
def test_whoever_uses_the_state_directory_refuses_another_users(
    root: Path, use: Callable[[Path], None]
) -> None:
    theirs = made_by(SOMEBODY, root / "state")
    with pytest.raises(DriverError, match="the driver's state directory"):
        use(theirs)
    assert list(theirs.iterdir()) == []


def test_nothing_is_looked_for_where_nothing_is(root: Path) -> None:
    private_directory.check(str(root / "none"))
    assert peers.peers(root / "none") == ()


def listener_of(owner: int, path: Path) -> socket.socket:
    """Listens as `owner`: the kernel names the caller of listen(2) as the peer."""
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    os.seteuid(owner)
    try:
        sock.listen()
    finally:
        os.seteuid(0)
    return sock


async def test_nothing_is_asked_of_a_listener_that_is_another_users(root: Path) -> None:
    with (
        listener_of(SOMEBODY, root / protocol.CONTROL_SOCKET),
        listener_of(SOMEBODY, root / protocol.LAUNCHER_SOCKET),
    ):
        with pytest.raises(DriverError, match=f"user {SOMEBODY} listens at") as refused:
            await connect_unix(root / protocol.CONTROL_SOCKET)
        assert refused.value.code is Code.DENIED
        with pytest.raises(DriverError, match=f"user {SOMEBODY} listens at"):
            await LauncherLink(root).fork(protocol.WorkerSpec(name="c", dir="/nowhere"))
        with pytest.raises(DriverError, match=f"user {SOMEBODY} listens at"):
            await LauncherLink(root).ensure()
