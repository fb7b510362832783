"""Contract tests of containerd: the fake and a real daemon behave alike for the driver."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import os
import re
import signal
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import pytest

from containerd.api.client import Containerd
from containerd.api.records import ContainerRecord, Mount, Status, Streams
from containerd.api.snapshots import GC_ROOT
from containerd.image.manifests import Descriptor
from containerd.image.oci_image import load_image
from containerd.pull.calls import SyncCalls
from containerd.pull.content_store import ContentStore
from proto.errors import Code, DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.daemons.shim_tasks import IMAGE, import_image
from tests.support.fakes.containerd import FakeContainerd
from tests.support.waiting import until
from tests.support.workers.peers import LogReader, has_ended

Daemon = FakeContainerd | ContainerdDaemon
SNAPSHOTTER = "overlayfs"
DIGEST = f"sha256:{'0' * 64}"


@pytest.fixture(scope="module", params=["fake", pytest.param("real", marks=pytest.mark.containerd)])
def daemon(request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """Yields a containerd with an image."""
    if request.param == "real":
        yield request.getfixturevalue("containerd")
        return
    with FakeContainerd() as fake:
        yield fake


@pytest.fixture(scope="module")
def chain(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns the chain id of an unpacked image with the name IMAGE."""
    if isinstance(daemon, FakeContainerd):
        return daemon.add_image(IMAGE, {"Cmd": ["/bin/sh"]})
    return import_image(daemon, tmp_path_factory.mktemp("image"))


class Place:
    """A test's own corner of the daemon: ids begin with the corner's name."""

    def __init__(self, daemon: Daemon, chain: str, logs: Path) -> None:
        self.client = Containerd(daemon.address, daemon.namespace)
        self.chain = chain
        self.logs = logs
        self._daemon = daemon

    def spec(self, script: str) -> bytes:
        """Builds an OCI spec that runs a script."""
        args = ["/bin/sh", "-c", script]
        if isinstance(self._daemon, FakeContainerd):
            return json.dumps({"process": {"args": args}}).encode()
        spec = json.loads(self._daemon.ctr("oci", "spec"))
        spec["process"].update(args=args, env=["PATH=/bin"], terminal=False)
        spec["linux"]["cgroupsPath"] = f"/{self._daemon.namespace}/contract"
        return json.dumps(spec).encode()

    def record(self, id: str = "c", script: str = "true", **fields: Any) -> ContainerRecord:
        """Builds the record of a container of the image."""
        return ContainerRecord(
            **{
                "id": id,
                "labels": {"kind": id},
                "image": IMAGE,
                "runtime": "io.containerd.runc.v2",
                "spec_json": self.spec(script),
                "snapshotter": SNAPSHOTTER,
                "snapshot_key": f"{id}-snapshot",
                **fields,
            }
        )

    async def container(self, id: str = "c", script: str = "true") -> tuple[Mount, ...]:
        """Creates a container with a snapshot, held by a lease as in a start."""
        await self.client.leases.create(f"{id}-lease", expire_s=600, labels={})
        mounts = await self.client.snapshots.prepare(
            SNAPSHOTTER, f"{id}-snapshot", self.chain, {}, f"{id}-lease"
        )
        await self.client.containers.create(self.record(id, script))
        return mounts

    async def task(self, script: str, id: str = "c", stdout: str = "", stderr: str = "") -> int:
        """Creates a task and returns the pid."""
        mounts = await self.container(id, script)
        return await self.client.tasks.create(id, mounts, Streams(stdout=stdout, stderr=stderr))

    async def end(self, id: str = "c") -> None:
        """Kills and deletes a task."""
        await self.client.tasks.kill(id, signal.SIGKILL, everyone=True)
        await until_stopped(self.client, id)
        await self.client.tasks.delete(id)


async def until_stopped(client: Containerd, id: str) -> None:
    async with asyncio.timeout(10):
        while (record := await client.tasks.get(id)) and record.status is not Status.STOPPED:
            await asyncio.sleep(0.01)


@pytest.fixture
def place(runner: asyncio.Runner, daemon: Daemon, chain: str, tmp_path: Path) -> Iterator[Place]:
    """Yields a place in the daemon, then removes all objects in the daemon."""
    place = Place(daemon, chain, tmp_path)
    yield place
    runner.run(place.client.close())
    daemon.remove_all()


async def refused(call: Awaitable[object], code: Code) -> DriverError:
    """Expects a call to be refused with the code, and yields the error."""
    with pytest.raises(DriverError) as failed:
        await call
    assert failed.value.code is code, failed.value
    assert failed.value.brief.startswith("containerd cannot ")
    return failed.value


# --- identity


async def test_it_tells_its_version_and_its_snapshotters(place: Place) -> None:
    assert (await place.client.version()).version
    assert SNAPSHOTTER in await place.client.snapshotters()
    assert (await place.client.snapshotter_root(SNAPSHOTTER)).startswith("/")


async def test_its_warnings_of_deprecated_features_have_a_word_and_a_sentence(
    place: Place,
) -> None:
    for warning in await place.client.deprecations():
        assert re.fullmatch(r"[a-z0-9-]+", warning.id)
        assert " " in warning.message


async def test_a_call_without_a_namespace_is_refused(daemon: Daemon) -> None:
    client = Containerd(daemon.address, "")
    await refused(client.images.get(IMAGE), Code.PRECONDITION)
    await client.close()


async def test_namespaces_know_nothing_of_each_other(daemon: Daemon, chain: str) -> None:
    client = Containerd(daemon.address, "another")
    assert await client.images.get(IMAGE) is None
    assert not await client.snapshots.exists(SNAPSHOTTER, chain)
    await client.close()


# --- images and content


async def test_an_image_leads_to_its_config_and_its_topmost_snapshot(place: Place) -> None:
    record = await place.client.images.get(IMAGE)
    assert record is not None
    assert record.size == len(await place.client.content.read(record.digest, 4096))
    assert (await load_image(place.client.content, record)).chain_id == place.chain
    assert await place.client.snapshots.exists(SNAPSHOTTER, place.chain)


async def test_an_image_that_is_not_there_is_none_and_its_removal_no_failure(place: Place) -> None:
    assert await place.client.images.get("example.com/none:1") is None
    await place.client.images.delete("example.com/none:1")
    await place.client.images.set_label("example.com/none:1", "a", "b")


async def test_labels_of_an_image_come_and_go_one_by_one_and_find_it(place: Place) -> None:
    client, key = place.client, "example.com/some-label"
    await client.images.set_label(IMAGE, key, "yes")
    await client.images.set_label(IMAGE, "other", "1")
    (found,) = await client.images.list(f'labels."{key}"==yes')
    assert (found.name, found.labels[key], found.labels["other"]) == (IMAGE, "yes", "1")
    assert await client.images.list(f'labels."{key}"==no') == ()
    await client.images.set_label(IMAGE, key, "")
    await client.images.set_label(IMAGE, "other", "")
    assert await client.images.list(f'labels."{key}"==yes') == ()
    assert IMAGE in {image.name for image in await client.images.list()}


async def test_content_that_is_missing_or_too_large_is_told_apart(place: Place) -> None:
    await refused(place.client.content.read(DIGEST, 10), Code.NOT_FOUND)
    record = await place.client.images.get(IMAGE)
    assert record is not None
    with pytest.raises(DriverError) as failed:
        await place.client.content.read(record.digest, record.size - 1)
    assert failed.value.code is Code.CORRUPT


def test_a_blob_is_written_once_and_only_as_what_it_was_said_to_be(daemon: Daemon) -> None:
    calls = SyncCalls(daemon.address, daemon.namespace, "")
    store = ContentStore(calls)
    body = b"some words for " + os.urandom(8)

    def blob(digest_of: bytes, size: int) -> Descriptor:
        digest = f"sha256:{hashlib.sha256(digest_of).hexdigest()}"
        return Descriptor(media_type="text/plain", digest=digest, size=size)

    for wrong in (blob(b"other", len(body)), blob(body, len(body) + 1)):
        with pytest.raises(DriverError) as failed:
            store.write(wrong, [body], {}, lambda _: None)
        assert failed.value.code is Code.CORRUPT
    good = blob(body, len(body))
    seen: list[int] = []
    store.write(good, [body[:4], body[4:]], {}, seen.append)
    store.write(good, iter(()), {}, seen.append)
    assert store.read(good.digest, 100) == body
    calls.close()


# --- leases and snapshots


async def test_a_lease_may_be_made_twice_and_deleted_twice(place: Place) -> None:
    for _ in range(2):
        await place.client.leases.create("l", expire_s=60, labels={"a": "b"})
    for _ in range(2):
        await place.client.leases.delete("l")


async def test_a_lease_tells_the_whole_blobs_that_it_holds(place: Place) -> None:
    client = place.client
    record = await client.images.get(IMAGE)
    assert record is not None
    assert await client.leases.blobs("l") == ()
    await refused(client.leases.add_blob("l", record.digest), Code.NOT_FOUND)
    await client.leases.create("l", expire_s=60, labels={})
    assert await client.leases.blobs("l") == ()
    await client.snapshots.prepare(SNAPSHOTTER, "s", place.chain, {}, "l")
    for _ in range(2):
        await client.leases.add_blob("l", record.digest)
    assert await client.leases.blobs("l") == (record.digest,)
    await client.leases.delete("l")
    assert await client.leases.blobs("l") == ()


async def test_a_snapshot_is_made_once_and_removed_as_often_as_one_likes(place: Place) -> None:
    client = place.client
    await client.leases.create("l", expire_s=60, labels={})
    mounts = await client.snapshots.prepare(SNAPSHOTTER, "s", place.chain, {"a": "b"}, "l")
    assert mounts
    assert mounts[0].type in {"overlay", "bind"}
    again = client.snapshots.prepare(SNAPSHOTTER, "s", place.chain, {}, "l")
    await refused(again, Code.ALREADY_EXISTS)
    assert await client.snapshots.exists(SNAPSHOTTER, "s")
    for _ in range(2):
        await client.snapshots.remove(SNAPSHOTTER, "s")
    assert not await client.snapshots.exists(SNAPSHOTTER, "s")


async def test_a_snapshot_needs_a_parent_a_lease_and_a_snapshotter_that_are_there(
    place: Place,
) -> None:
    prepare = place.client.snapshots.prepare
    await refused(prepare(SNAPSHOTTER, "s", DIGEST, {}, ""), Code.NOT_FOUND)
    await refused(prepare(SNAPSHOTTER, "s", place.chain, {}, "no-lease"), Code.NOT_FOUND)
    await refused(prepare("unheard-of", "s", place.chain, {}, ""), Code.INVALID)
    assert not await place.client.snapshots.exists(SNAPSHOTTER, "s")


async def test_a_snapshot_that_others_stand_on_stays(place: Place) -> None:
    await place.container()
    await refused(place.client.snapshots.remove(SNAPSHOTTER, place.chain), Code.PRECONDITION)


async def test_without_its_lease_a_snapshot_stays_for_its_container_alone(place: Place) -> None:
    client = place.client
    await place.container("kept")
    await client.leases.create("l", expire_s=60, labels={})
    await client.snapshots.prepare(SNAPSHOTTER, "loose", place.chain, {}, "l")
    await client.leases.delete("kept-lease")
    await client.leases.delete("l")
    async with asyncio.timeout(10):
        while await client.snapshots.exists(SNAPSHOTTER, "loose"):
            await asyncio.sleep(0.05)
    assert await client.snapshots.exists(SNAPSHOTTER, "kept-snapshot")


async def test_a_snapshot_that_is_born_a_root_stays_without_lease_and_container(
    place: Place,
) -> None:
    client = place.client
    await client.snapshots.prepare(SNAPSHOTTER, "root", place.chain, {GC_ROOT: "true"})
    await client.leases.create("l", expire_s=60, labels={})
    await client.snapshots.prepare(SNAPSHOTTER, "loose", place.chain, {}, "l")
    await client.leases.delete("l", collect=True)
    async with asyncio.timeout(10):
        while await client.snapshots.exists(SNAPSHOTTER, "loose"):
            await asyncio.sleep(0.05)
    assert await client.snapshots.exists(SNAPSHOTTER, "root")
    await client.snapshots.remove(SNAPSHOTTER, "root")
    assert not await client.snapshots.exists(SNAPSHOTTER, "root")


async def test_what_is_found_by_its_labels_says_when_it_was_made(place: Place) -> None:
    labels = {"a.b/c": 'a "b", c', "other": "x"}
    client = place.client
    before = time.time_ns()
    await client.leases.create("l", expire_s=60, labels=labels)
    await client.leases.create("plain", expire_s=60, labels={})
    await client.snapshots.prepare(SNAPSHOTTER, "s", place.chain, labels, "l")
    await client.snapshots.prepare(SNAPSHOTTER, "plain", place.chain, {}, "l")
    record = dataclasses.replace(place.record("c"), labels=labels)
    await client.containers.create(record)
    for condition in ('labels."a.b/c"', 'labels."a.b/c"=="a \\"b\\", c"'):
        (lease,) = await client.leases.list(condition)
        (snapshot,) = await client.snapshots.list(SNAPSHOTTER, condition)
        (container,) = await client.containers.list(condition)
        assert (lease.id, snapshot.key, container.id) == ("l", "s", "c")
        for found in (lease, snapshot, container):
            assert found.labels.items() >= labels.items()
            assert before <= found.created_at_ns <= time.time_ns()
    assert await client.leases.list('labels."a.b/c"==x') == ()
    everything = await client.snapshots.list(SNAPSHOTTER)
    assert {one.key for one in everything} == {"s", "plain"}  # no layer of an image


# --- containers


async def test_a_container_gives_back_what_was_written_of_it(place: Place) -> None:
    await place.container("a")
    await place.container("b")
    assert await place.client.containers.get("a") == place.record("a")
    assert {one.id for one in await place.client.containers.list()} == {"a", "b"}
    (found,) = await place.client.containers.list("labels.kind==b")
    assert found.id == "b"


async def test_a_container_id_is_used_once_and_deleted_as_often_as_one_likes(place: Place) -> None:
    await place.container()
    again = place.client.containers.create(place.record())
    await refused(again, Code.ALREADY_EXISTS)
    for _ in range(2):
        await place.client.containers.delete("c")
    assert await place.client.containers.get("c") is None


# --- tasks


async def test_a_task_is_created_started_waited_for_and_deleted(place: Place) -> None:
    client = place.client
    pid = await place.task("exit 3")
    record = await client.tasks.get("c")
    assert record is not None
    assert (record.pid, record.status) == (pid, Status.CREATED)
    waiting = asyncio.create_task(client.tasks.wait("c"))
    assert await client.tasks.start("c") == pid
    ended = await waiting
    assert ended.code == 3
    await until_stopped(client, "c")
    record = await client.tasks.get("c")
    assert record is not None
    assert (record.status, record.exit_status) == (Status.STOPPED, 3)
    assert await client.tasks.wait("c") == ended
    assert await client.tasks.delete("c") == ended
    assert await client.tasks.get("c") is None
    assert await client.tasks.delete("c") is None


async def test_a_container_has_one_task(place: Place) -> None:
    await place.task("sleep 60")
    again = place.client.tasks.create("c", (), Streams())
    await refused(again, Code.ALREADY_EXISTS)
    await place.end()


async def test_a_task_that_runs_is_not_deleted_and_not_started_again(place: Place) -> None:
    await place.task("sleep 60")
    await place.client.tasks.start("c")
    # containerd gives no better code for these.
    error = await refused(place.client.tasks.delete("c"), Code.INTERNAL)
    assert "cannot delete a running process" in error.details
    error = await refused(place.client.tasks.start("c"), Code.INTERNAL)
    assert "cannot start a running process" in error.details
    await place.end()


async def test_a_signal_ends_a_task_with_128_and_its_number(place: Place) -> None:
    await place.task("sleep 60 & exec sleep 60")
    await place.client.tasks.start("c")
    await place.client.tasks.kill("c", signal.SIGKILL, everyone=True)
    assert (await place.client.tasks.wait("c")).code == 128 + signal.SIGKILL
    await until_stopped(place.client, "c")
    again = place.client.tasks.kill("c", signal.SIGKILL, everyone=False)
    await refused(again, Code.NOT_FOUND)
    await place.client.tasks.delete("c")


async def test_a_task_that_was_never_started_can_be_killed_and_deleted(place: Place) -> None:
    await place.task("sleep 60", "killed")
    await place.end("killed")
    assert await place.client.tasks.get("killed") is None
    pid = await place.task("sleep 60", "deleted")
    assert await place.client.tasks.delete("deleted") is not None
    assert await place.client.tasks.get("deleted") is None
    await until(lambda: has_ended(pid), 10)


async def test_ids_that_nobody_has_are_not_found(place: Place) -> None:
    client = place.client
    assert await client.tasks.get("none") is None
    assert await client.tasks.delete("none") is None
    create = client.tasks.create("none", (), Streams())
    await refused(create, Code.NOT_FOUND)
    await refused(client.tasks.start("none"), Code.NOT_FOUND)
    await refused(client.tasks.wait("none"), Code.NOT_FOUND)
    await refused(client.tasks.kill("none", 9, everyone=False), Code.NOT_FOUND)
    await place.container()
    assert await client.tasks.get("c") is None
    await refused(client.tasks.start("c"), Code.NOT_FOUND)


async def test_a_task_is_out_of_reach_without_its_containers_record(place: Place) -> None:
    client = place.client
    await place.task("sleep 60")
    await client.containers.delete("c")
    assert await client.tasks.get("c") is None
    await client.containers.create(place.record())
    assert await client.tasks.get("c") is not None
    await place.end()


async def test_the_logs_get_all_that_the_task_wrote_and_then_their_end(place: Place) -> None:
    out, err = place.logs / "out", place.logs / "err"
    readers = []
    for fifo in (out, err):
        os.mkfifo(fifo)
        readers.append(LogReader(fifo))
    await place.task("echo hello; echo oops >&2", stdout=str(out), stderr=str(err))
    await place.client.tasks.start("c")
    written = [await asyncio.to_thread(reader.finish) for reader in readers]
    assert written == [b"hello\n", b"oops\n"]
    await until_stopped(place.client, "c")
    await place.client.tasks.delete("c")


async def test_the_shims_address_is_in_the_tasks_bundle(place: Place, daemon: Daemon) -> None:
    pid = await place.task("sleep 60")
    shim = await place.client.shim("c", pid)
    assert shim is not None
    assert Path(shim.address.removeprefix("unix://")).exists()
    await place.end()


# --- exec


async def _exec(place: Place, args: list[str]) -> list[LogReader]:
    """Prepares a command in the running task, with FIFOs as streams."""
    for name in ("in", "o", "e"):
        os.mkfifo(place.logs / name)
    process = json.loads(place.spec("").decode())["process"] | {"args": args}
    await place.client.tasks.create_exec(
        "c",
        "x",
        json.dumps(process).encode(),
        Streams(
            stdin=str(place.logs / "in"), stdout=str(place.logs / "o"), stderr=str(place.logs / "e")
        ),
    )
    return [LogReader(place.logs / name) for name in ("o", "e")]


async def test_a_command_in_a_task_has_streams_and_an_exit_of_its_own(place: Place) -> None:
    client = place.client
    await place.task("sleep 60")
    await client.tasks.start("c")
    readers = await _exec(place, ["/bin/sh", "-c", "cat; echo oops >&2; exit 4"])
    stdin = os.open(place.logs / "in", os.O_RDWR)
    assert await client.tasks.start_exec("c", "x")
    os.write(stdin, b"words")
    os.close(stdin)
    await client.tasks.close_stdin("c", "x")
    assert (await client.tasks.wait("c", "x")).code == 4
    written = [await asyncio.to_thread(reader.finish) for reader in readers]
    assert written == [b"words", b"oops\n"]
    for _ in range(2):
        await client.tasks.delete_exec("c", "x")
    await place.end()


async def test_a_command_that_cannot_be_run_is_refused(place: Place) -> None:
    client = place.client
    await place.task("sleep 60")
    await client.tasks.start("c")
    readers = await _exec(place, ["/no/such/program"])
    stdin = os.open(place.logs / "in", os.O_RDWR)
    with pytest.raises(DriverError) as failed:
        await client.tasks.start_exec("c", "x")
    os.close(stdin)
    assert "no such file or directory" in failed.value.details.lower()
    for name in ("o", "e"):  # the shim has not opened them, and the readers still wait
        os.close(await asyncio.to_thread(os.open, place.logs / name, os.O_WRONLY))
    assert [await asyncio.to_thread(reader.finish) for reader in readers] == [b"", b""]
    await client.tasks.delete_exec("c", "x")
    await place.end()
