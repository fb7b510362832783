"""S19: images made to reach out of their root, to be read wrongly, or to fill the machine."""

from __future__ import annotations

import asyncio
import io
import operator
import os
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from proto.errors import DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.plugin.driver import Driver, launched
from tests.support.registries import images
from tests.support.registries.image_store import Images
from tests.support.registries.registry import Registry
from tests.support.waiting import until

pytestmark = pytest.mark.containerd

Push = Callable[..., str]


@pytest.fixture
def push(registry: Registry, request: pytest.FixtureRequest) -> Push:
    """Pushes an image of these layers, under the test's own name."""
    name = request.node.name.partition("[")[0][5:60].lower()

    def pushed(*layers: bytes, tag: str = "1", **config: Any) -> str:
        return images.push(registry.host, name, tag, images.build(layers, config))

    return pushed


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", body: bytes = b"evil"
) -> tuple[tarfile.TarInfo, bytes]:
    """Builds an entry of a hostile layer."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o777
    info.size = len(body) if kind == tarfile.REGTYPE else 0
    if kind in {tarfile.CHRTYPE, tarfile.BLKTYPE}:
        info.devmajor, info.devminor = 8, 0
    return info, body if kind == tarfile.REGTYPE else b""


def layer_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """Builds a layer with exactly the given entries."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, body in members:
            tar.addfile(info, io.BytesIO(body))
    return out.getvalue()


@pytest.fixture
def decoy(tmp_path: Path) -> Iterator[Path]:
    """Yields a directory of the host with a file, and checks that both are unchanged at the end."""
    place = tmp_path / "host"
    place.mkdir()
    (place / "kept").write_text("as it was")
    yield place
    assert [path.name for path in place.iterdir()] == ["kept"]
    assert (place / "kept").read_text() == "as it was"


def escapes(decoy: Path) -> dict[str, bytes]:
    """Builds layers that lead to the decoy if a reader follows links."""
    up = "../" * 20
    out = str(decoy)[1:]
    link, hard = tarfile.SYMTYPE, tarfile.LNKTYPE
    return {
        "a name that climbs": layer_of(member(f"{up}{out}/evil")),
        "an absolute name": layer_of(member(f"/{out}/evil")),
        "through an absolute link": layer_of(member("l", link, str(decoy)), member("l/evil")),
        "through a relative link": layer_of(member("l", link, f"{up}{out}"), member("l/evil")),
        "over a file by a link": layer_of(
            member("f", link, f"{decoy}/kept"), member("f", body=b"overwritten")
        ),
        "a hard link out": layer_of(
            member("h", hard, f"{up}{out}/kept"), member("h", body=b"overwritten")
        ),
        "an absolute hard link": layer_of(
            member("h", hard, f"{decoy}/kept"), member("h", body=b"overwritten")
        ),
        "a whiteout of what is above": layer_of(member(f"{up}{out}/.wh.kept", body=b"")),
        "a whiteout through a link": layer_of(
            member("l", link, str(decoy)), member("l/.wh.kept", body=b"")
        ),
        "an opaque link": layer_of(
            member("l", link, str(decoy)), member("l/.wh..wh..opq", body=b"")
        ),
        "a whiteout of the parent": layer_of(member("d/.wh...", body=b"")),
        "a whiteout of itself": layer_of(member(".wh..", body=b"")),
    }


def outcome(store: Images, image: str) -> str:
    """Returns the reason for the refusal of an image; "" without a refusal."""
    try:
        store.get(image)
    except DriverError as error:
        return str(error)
    return ""


def test_no_layer_writes_or_removes_anything_outside_of_its_root(
    containerd: ContainerdDaemon, registry: Registry, tmp_path: Path, decoy: Path
) -> None:
    """Accepts a refusal, or unpacking inside. A second layer meets the files of a first layer."""
    store = Images(containerd, tmp_path)
    unpacked = 0
    for number, (kind, layer) in enumerate(escapes(decoy).items()):
        for tag, layers in (("one", [layer]), ("two", [layer, layer])):
            built = images.build([*layers, images.layer({"n": os.urandom(8)})])
            image = images.push(registry.host, f"escape{number}", tag, built)
            why = outcome(store, image)
            assert not why or "cannot unpack layer" in why, (kind, why)
            unpacked += not why
            assert (decoy / "kept").read_text() == "as it was", kind
            assert not (decoy / "evil").exists(), kind
    assert unpacked
    roots = (Path(containerd.base) / "root").rglob("evil")
    assert list(roots), "what was meant for the host is in the image"


async def test_a_device_in_a_layer_is_no_device_of_the_task(driver: Driver, push: Push) -> None:
    devices = layer_of(
        member("sda", tarfile.BLKTYPE), member("dev/sda", tarfile.BLKTYPE), member("d/x")
    )
    image = push(images.busybox_layer(), devices)
    async with launched(driver) as session:
        job = driver.task()
        await driver.start(job, image, "ls -l /sda; head -c 1 /sda; echo $?")
        await session.wait(job.id)
        await driver.end(job)
        assert job.out.startswith(b"br")
        assert b"Operation not permitted" in job.err
        assert job.out.endswith(b"1\n")


USERS = [
    "9" * 5000,
    "-1",
    "4294967295",
    "root:root:root",
    "../../etc",
    "a b",
    "٣",
    "x" * 10_000,
    "$(",
]


async def test_a_user_of_an_image_that_is_none_is_refused_and_leaves_nothing(
    driver: Driver, push: Push
) -> None:
    async with launched(driver) as session:
        for number, user in enumerate(USERS):
            image = push(images.busybox_layer(), tag=str(number), User=user, Cmd=["/bin/id"])
            with pytest.raises(DriverError, match="Error in creating container: ") as caught:
                await session.start(driver.task().config, {"image": image})
            assert len(str(caught.value)) < 500
            driver.wait_clean()


async def test_users_are_read_in_the_image_whatever_its_files_are(
    driver: Driver, push: Push
) -> None:
    """Links to the host's files, a FIFO, a directory, a device, ten megabytes, a loop."""
    link, flood = tarfile.SYMTYPE, b"x:x:1:1::/:/\n" * 800_000
    etc = {
        "host": [member("etc/passwd", link, "/../../../../../../etc/shadow")],
        "proc": [member("etc/passwd", link, "/proc/self/environ")],
        "fifo": [member("etc/passwd", tarfile.FIFOTYPE)],
        "group": [member("etc/group", tarfile.FIFOTYPE)],
        "directory": [member("etc/passwd", tarfile.DIRTYPE), member("etc/passwd/x")],
        "device": [member("etc/passwd", tarfile.CHRTYPE)],
        "huge": [member("etc/passwd", body=flood + b"eve:x:7:7::/:/\n")],
        "loop": [member("etc/passwd", link, "passwd")],
    }
    async with launched(driver) as session:
        for tag, members in etc.items():
            job = driver.task(user="eve")
            image = push(images.busybox_layer(), layer_of(*members), tag=tag)
            refusals = r"no users found|cannot read the image|is not a regular file"
            with pytest.raises(DriverError, match=refusals):
                await session.start(job.config, {"image": image, "command": "/bin/id"})
        driver.wait_clean()


async def test_w4_others_are_answered_while_groups_and_words_without_end_are_looked_at(
    driver: Driver, push: Push
) -> None:
    """Guards against a pass over the file per group, which took 8 to 88 s of the event loop."""
    groups = "".join(f"g{number}:x:{number}:\n" for number in range(60_000)).encode()
    image = push(images.busybox_layer(), layer_of(member("etc/group", body=groups)))
    more = [f"g{number}" for number in range(59_000, 60_000)]
    async with launched(driver) as session:
        one = driver.task()
        await driver.start(one, image, "exec sleep 60")
        other = driver.task(user="bob")
        words = ["-c", "grep Groups: /proc/self/status | wc -w; echo $#", *["x"] * 100_000]
        starting = asyncio.create_task(
            driver.start(other, image, command="/bin/sh", args=words, group_add=more)
        )
        answers = 0
        while not starting.done():
            await asyncio.wait_for(session.inspect(one.id), 5)
            answers += 1
            await asyncio.wait([starting], timeout=0.02)
        await starting
        assert answers > 5
        await session.wait(other.id)
        await driver.end(other)
        assert other.out == b"1002\n99999\n"
        await session.stop(one.id, 10, "SIGKILL")
        await driver.end(one)


CONFIGS: list[dict[str, Any]] = [
    {"StopSignal": "SIGFUN"},
    {"StopSignal": "9" * 5000},
    {"Env": ["", "=", "A", "PATH=", "HOME=\n", "A=" + "x" * 100_000]},
    {"Volumes": {"/etc": {}, "../..": {}}, "ExposedPorts": {"x": 1}, "Labels": {"a": "\u202e"}},
]


async def test_a_task_of_an_image_with_an_odd_config_runs_and_is_stopped(
    driver: Driver, push: Push
) -> None:
    async with launched(driver) as session:
        for number, config in enumerate(CONFIGS):
            job = driver.task()
            image = push(images.busybox_layer(), tag=str(number), **config)
            script = 'trap "exit 3" TERM; echo ready; while :; do sleep 0.05; done'
            await driver.start(job, image, "/bin/true")
            await session.wait(job.id)
            await driver.end(job)
            job = driver.task()
            await driver.start(job, image, script)
            await until(partial(operator.contains, job.out, b"ready"), 10)
            await session.stop(job.id, timeout_s=30)
            assert (await session.wait(job.id)).exit_code == 3
            await driver.end(job)


BROKEN: list[dict[str, Any]] = [
    {"StopSignal": "\ud800"},
    {"Env": ["A=\0"]},
    {"Env": [1]},
    {"Env": {"A": "B"}},
    {"Cmd": "\ud800"},
    {"Entrypoint": [None]},
    {"WorkingDir": ["/"]},
    {"User": 0.5},
    {"Labels": ["x"]},
]


async def test_a_config_that_no_wire_carries_stops_the_start_before_anything_runs(
    driver: Driver, push: Push
) -> None:
    async with launched(driver) as session:
        for number, config in enumerate(BROKEN):
            image = push(images.busybox_layer(), tag=str(number), **config)
            with pytest.raises(DriverError, match="is damaged: "):
                await session.start(driver.task().config, {"image": image, "command": "/bin/id"})
            driver.wait_clean()


async def test_a_layer_that_unpacks_to_a_thousand_times_its_size_costs_the_plugin_nothing(
    driver: Driver, push: Push
) -> None:
    """Unpacks a layer as a stream; neither plugin nor puller ever holds a whole layer."""
    zeros = layer_of(member("zeros", body=bytes(256 * 1024 * 1024)))
    image = push(images.busybox_layer(), zeros)
    async with launched(driver) as session:
        before = _peak_kib(session.pid)
        said = await driver.output(image, "stat -c %s /zeros")
        assert said == f"{256 * 1024 * 1024}\n"
        assert _peak_kib(session.pid) - before < 100 * 1024


def _peak_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])
