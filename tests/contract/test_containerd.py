"""Contract tests of containerd: the fake and a real daemon behave alike for the driver."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
import re
import time

import pytest

from containerd.api.client import Containerd
from containerd.api.snapshots import GC_ROOT
from containerd.image.manifests import Descriptor
from containerd.image.oci_image import load_image
from containerd.pull.calls import SyncCalls
from containerd.pull.content_store import ContentStore
from proto.errors import Code, DriverError
from tests.support.daemons.shim_tasks import IMAGE
from tests.support.fakes.either import SNAPSHOTTER, Daemon, Place, refused

DIGEST = f"sha256:{'0' * 64}"


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
