"""Tests of broken downloads, which resume at the break; whole blobs outlive a failed pull."""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from actors.images import kept_blobs
from proto.errors import Code, DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.registries import images
from tests.support.registries.image_store import Images
from tests.support.registries.images import Image
from tests.support.registries.recording_server import Answer, RecordingServer, Request
from tests.support.registries.scripted_registry import Rule, ScriptedRegistry, ranged
from tests.support.waiting import wait_until

pytestmark = pytest.mark.containerd

MIB = 1024 * 1024


@pytest.fixture
def store(containerd: ContainerdDaemon, tmp_path: Path) -> Iterator[Images]:
    """Yields images; removes the leases of kept blobs that a test leaves."""
    yield Images(containerd, tmp_path)
    for lease in leases(containerd):
        containerd.ctr("leases", "delete", "--sync", lease)


def leases(containerd: ContainerdDaemon) -> list[str]:
    """Returns the ids of all leases."""
    return containerd.ctr("leases", "list", "-q").split()


def image_of(*sizes: int) -> tuple[Image, list[str]]:
    """Builds an image that containerd has never seen; returns image and layer digests."""
    layers = [images.layer({f"f{n}": os.urandom(size)}) for n, size in enumerate(sizes)]
    image = images.build(layers)
    return image, [one["digest"] for one in json.loads(image.body)["layers"]]


def starts(registry: ScriptedRegistry, digest: str) -> list[int]:
    """Returns the first requested byte of each request for a blob."""
    ranges = [one.headers.get("range", "bytes=0-") for one in registry.blobs(digest)]
    return [int(text.removeprefix("bytes=").rstrip("-")) for text in ranges]


def only(digest: str, change: Callable[[Request, Answer], Answer]) -> Rule:
    """Builds a rule for a single blob."""
    return lambda request, honest: (
        change(request, honest) if request.path.partition("?")[0].endswith(digest) else honest
    )


def cut_at(count: int) -> Callable[[Request, Answer], Answer]:
    """Cuts each answer after the given number of bytes."""

    def change(_: Request, honest: Answer) -> Answer:
        cut = count if len(honest.body) > count else None
        return Answer(honest.status, honest.headers, honest.body, cut)

    return change


def test_a_layer_whose_connection_breaks_goes_on_where_it_broke(store: Images) -> None:
    image, (layer,) = image_of(5 * MIB)
    with ScriptedRegistry(image, only(layer, cut_at(MIB))) as registry:
        assert store.get(f"{registry.host}/cut:1").digest == image.digest
        assert starts(registry, layer) == [n * MIB for n in range(6)]


def test_a_server_without_ranges_begins_anew_and_what_is_here_already_is_passed_over(
    store: Images,
) -> None:
    image, (layer,) = image_of(3 * MIB)
    cuts = itertools.chain([MIB, 2 * MIB], itertools.repeat(None))

    def change(_: Request, __: Answer) -> Answer:
        return Answer(200, {}, image.blobs[layer], next(cuts))

    with ScriptedRegistry(image, only(layer, change)) as registry:
        assert store.get(f"{registry.host}/no-ranges:1").digest == image.digest
        assert starts(registry, layer) == [0, MIB, 2 * MIB]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(416),
        Answer(206, {}, b"x" * MIB),
        Answer(206, {"Content-Range": "bytes 5-9/10"}, b"x" * 5),
        Answer(206, {"Content-Range": "bytes 0-99/100"}, b"x" * 100),
        Answer(206, {"Content-Range": f"bytes {MIB}-{MIB + 9}/{MIB + 10}"}, b"x" * 10),
        Answer(206, {"Content-Range": "nonsense", "Content-Type": "multipart/byteranges"}, b"x"),
    ],
    ids=["416", "no range told", "another range", "from 0", "of another size", "nonsense"],
)
def test_a_wrong_answer_to_a_range_has_the_blob_asked_for_whole(
    store: Images, answer: Answer
) -> None:
    image, (layer,) = image_of(2 * MIB)

    def change(request: Request, _: Answer) -> Answer:
        if "range" in request.headers:
            return answer
        first = len(registry.blobs(layer)) == 1
        return Answer(200, {}, image.blobs[layer], MIB if first else None)

    with ScriptedRegistry(image, only(layer, change)) as registry:
        assert store.get(f"{registry.host}/wrong-range:1").digest == image.digest
        assert starts(registry, layer) == [0, MIB, 0]


def test_a_rest_that_is_another_blobs_is_found_out_and_the_whole_fetched_anew(
    store: Images,
) -> None:
    image, (layer,) = image_of(2 * MIB)

    def change(request: Request, honest: Answer) -> Answer:
        if "range" in request.headers:
            return Answer(206, honest.headers, b"z" * len(honest.body))
        first = len(registry.blobs(layer)) == 1
        return Answer(200, {}, honest.body, MIB if first else None)

    with ScriptedRegistry(image, only(layer, change)) as registry:
        assert store.get(f"{registry.host}/lied:1").digest == image.digest
        assert starts(registry, layer) == [0, MIB, 0]


def test_a_signed_url_that_expired_meanwhile_is_asked_for_anew(store: Images) -> None:
    image, (layer,) = image_of(3 * MIB)
    used: set[str] = set()
    signed = itertools.count()

    def storage(request: Request) -> Answer:
        if request.path in used:
            return Answer(403, {}, b"<Error><Code>AccessDenied</Code></Error>")
        used.add(request.path)
        return cut_at(MIB)(request, ranged(request.headers, image.blobs[layer]))

    with RecordingServer(storage) as cdn:

        def change(_: Request, __: Answer) -> Answer:
            # Every second URL from the registry is already used up.
            return Answer(307, {"Location": f"http://{cdn.host}/b?sig={next(signed) // 2}"})

        with ScriptedRegistry(image, only(layer, change)) as registry:
            assert store.get(f"{registry.host}/signed:1").digest == image.digest
        assert [r.headers.get("range") for r in cdn.requests if r.path not in used] == []
        statuses = [one.headers.get("range", "") for one in cdn.requests]
        assert statuses[0] == ""
        assert statuses[-1] == f"bytes={3 * MIB}-"


def test_a_registry_that_restarts_amid_a_layer_is_waited_for(store: Images) -> None:
    image, (layer,) = image_of(3 * MIB)
    cut = threading.Event()

    def dies(_: Request, honest: Answer) -> Answer:
        cut.set()
        return Answer(honest.status, honest.headers, honest.body, MIB)

    with (
        ThreadPoolExecutor() as pool,
        ScriptedRegistry(image, only(layer, dies)) as registry,
    ):
        name = f"{registry.host}/restarted:1"
        pulled = pool.submit(store.get, name, image_pull_timeout_s=60.0)
        assert cut.wait(30)
        registry.close()
        # The storage is away when the pull requests the rest.
        wait_until(lambda: [one for one in store.events if "the pull goes on in" in one], 30)
        with ScriptedRegistry(image, port=int(registry.host.rpartition(":")[2])) as again:
            assert pulled.result(60).digest == image.digest
            assert starts(again, layer) == [starts(registry, layer)[-1] + MIB]
    assert "cannot be read" in str(store.events)


def test_a_layer_that_stands_still_is_asked_for_anew_from_there(
    containerd: ContainerdDaemon, tmp_path: Path
) -> None:
    store = Images(containerd, tmp_path, pull_activity_timeout_s=1.0)
    image, (layer,) = image_of(3 * MIB)
    over = threading.Event()

    def change(_: Request, honest: Answer) -> Answer:
        if len(registry.blobs(layer)) > 1:
            return honest
        return Answer(honest.status, honest.headers, honest.body, MIB, over)

    with ScriptedRegistry(image, only(layer, change)) as registry:
        try:
            assert store.get(f"{registry.host}/still:1").digest == image.digest
        finally:
            over.set()
        assert starts(registry, layer) == [0, MIB]


def test_another_mirror_goes_on_where_one_broke_for_good(store: Images) -> None:
    image, (layer,) = image_of(3 * MIB)

    def dies(request: Request, honest: Answer) -> Answer:
        if len(mirror.blobs(layer)) > 1:
            return Answer(404)
        return cut_at(2 * MIB)(request, honest)

    with (
        ScriptedRegistry(image, only(layer, dies)) as mirror,
        ScriptedRegistry(image) as server,
    ):
        store.hosts_file(
            "q.example", f'server = "http://{server.host}"\n[host."http://{mirror.host}"]'
        )
        assert store.get("q.example/mirrored:1").digest == image.digest
        assert [one.headers.get("range") for one in server.requests] == [f"bytes={2 * MIB}-"]


def test_whole_layers_of_a_failed_pull_are_not_fetched_again_and_are_let_go_after_all(
    store: Images, containerd: ContainerdDaemon
) -> None:
    image, (lower, upper) = image_of(2 * MIB, MIB)
    broken = True

    def change(_: Request, honest: Answer) -> Answer:
        return Answer(404) if broken else honest

    def fetched() -> bool:
        return lower in containerd.ctr("content", "list", "-q")

    with ScriptedRegistry(image, only(upper, change)) as registry:
        name = f"{registry.host}/kept:1"
        # Layers are pulled in parallel, so a failure of another layer may cut the first layer.
        for _ in range(20):
            with pytest.raises(DriverError):
                store.get(name)
            if fetched():
                break
        assert len(leases(containerd)) == 1
        containerd.ctr("content", "prune", "references")  # a collection of all unreferenced content
        assert fetched()
        assert "nomad-driver" not in containerd.ctr("content", "active")
        before = len(registry.blobs(lower))
        broken = False
        assert store.get(name).digest == image.digest
        assert len(registry.blobs(lower)) == before
        assert leases(containerd) == []


def test_blobs_of_an_image_that_is_wrong_are_not_kept(
    store: Images, containerd: ContainerdDaemon
) -> None:
    image, (lower, upper) = image_of(1000, 1000)

    def lie(_: Request, honest: Answer) -> Answer:
        return Answer(200, {}, b"z" * len(honest.body))

    with ScriptedRegistry(image, only(upper, lie)) as registry:
        with pytest.raises(DriverError) as caught:
            store.get(f"{registry.host}/wrong:1")
        assert caught.value.code is Code.CORRUPT
    assert leases(containerd) == []
    assert lower not in containerd.ctr("content", "list", "-q")


def test_what_is_kept_goes_by_itself(
    store: Images, containerd: ContainerdDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Covers a lease that is old at once: the next collection removes lease and blobs."""
    monkeypatch.setattr(kept_blobs, "_KEPT_S", -60.0)
    image, (lower, upper) = image_of(1000, MIB)

    def change(_: Request, __: Answer) -> Answer:
        return Answer(404)

    with ScriptedRegistry(image, only(upper, change)) as registry, pytest.raises(DriverError):
        store.get(f"{registry.host}/old:1")
    containerd.ctr("leases", "create", "--id", "passing")
    containerd.ctr("leases", "delete", "--sync", "passing")
    assert leases(containerd) == []
    assert lower not in containerd.ctr("content", "list", "-q")
