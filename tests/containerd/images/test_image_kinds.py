"""Tests of images of every registry kind: pulled, read back from containerd and previewed."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from actors.images.messages import ImageReady
from containerd.api import features, methods
from containerd.api.client import Containerd
from containerd.image import manifests, platforms
from containerd.image.manifests import Descriptor
from containerd.pull import content_store
from containerd.pull.calls import SyncCalls
from proto.containerd import images_pb2, types_pb2
from proto.errors import Code, DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.plugin.driver import Driver, launched
from tests.support.registries import images
from tests.support.registries.image_store import Images
from tests.support.registries.images import INDEX, LAYER, MANIFEST, digest_of
from tests.support.registries.recording_server import Answer, RecordingServer, Request
from tests.support.registries.scripted_registry import ScriptedRegistry
from tests.support.registries.served_images import Served
from tests.support.waiting import until

pytestmark = pytest.mark.containerd

OTHER = "riscv64" if images.host_architecture() != "riscv64" else "s390x"


@pytest.fixture
def store(containerd: ContainerdDaemon, tmp_path: Path) -> Images:
    return Images(containerd, tmp_path)


@pytest.fixture
def served() -> Served:
    return Served()


@pytest.fixture
def server(served: Served) -> Iterator[RecordingServer]:
    with served.server() as running:
        yield running


def entry(
    architecture: str,
    variant: str = "",
    system: str = "linux",
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Describes the platform of an index's entry."""
    platform = {"os": system, "architecture": architecture, "variant": variant}
    return {"platform": {**platform, **(more or {})}}


def collected(containerd: ContainerdDaemon) -> None:
    """Makes containerd collect unreferenced objects."""

    async def collect(client: Containerd) -> None:
        await client.leases.create("collects", expire_s=60, labels={})
        await client.leases.delete("collects", collect=True)

    containerd.ask(collect)


def got(store: Images, containerd: ContainerdDaemon, image: str) -> ImageReady:
    """Pulls the image, and checks that containerd's stored objects lead to the same image."""
    ready = store.get(image)
    collected(containerd)
    again = Images(containerd, store.task_directory.parent)
    assert again.get(image, image_pull_policy="never") == ready
    return ready


def refusal(store: Images, server: RecordingServer, tag: str = "1") -> DriverError:
    """Returns the permanent error of a pull that fails before a request for a layer."""
    with pytest.raises(DriverError) as caught:
        store.get(f"{server.host}/x:{tag}")
    assert not caught.value.recoverable
    assert "internal error of the puller" not in str(caught.value)
    assert store.record(f"{server.host}/x:{tag}") is None
    return caught.value


# --- platforms


@pytest.mark.parametrize("said", [None, {}, {"os": "linux"}])
def test_an_entry_without_platform_is_a_candidate(
    store: Images, containerd: ContainerdDaemon, served: Served, server: RecordingServer, said: Any
) -> None:
    mine = served.document(served.manifest("mine"), platform=said)
    arm = served.document(served.manifest("other", architecture=OTHER), **entry(OTHER))
    bare = served.document(served.manifest("bare", architecture=OTHER), platform=said)
    statement = served.document(served.manifest("evil"), **entry("unknown", system="unknown"))
    served.document(served.index(statement, arm, bare, mine), tag="1")
    assert got(store, containerd, f"{server.host}/x:1").config.cmd == ("mine",)


def test_an_image_of_other_machines_only_says_what_it_has(
    store: Images, served: Served, server: RecordingServer
) -> None:
    bare = served.document(served.manifest("bare", architecture=OTHER))
    windows = served.document(served.manifest("w"), **entry("amd64", system="windows"))
    statement = served.document(served.manifest("evil"), **entry("unknown", system="unknown"))
    served.document(served.index(statement, bare, windows), tag="1")
    error = refusal(store, server)
    assert f"has no manifest for {platforms.machine().name}" in error.brief
    assert error.details == f"platforms of the image: linux/{OTHER}, windows/amd64"


@pytest.mark.parametrize("depth", [1, 3, 7])
def test_an_index_in_an_index_is_descended(
    store: Images,
    containerd: ContainerdDaemon,
    served: Served,
    server: RecordingServer,
    depth: int,
) -> None:
    last = served.document(served.manifest("deep"), **entry(images.host_architecture()))
    for _ in range(depth):
        other = served.document(served.manifest("other", architecture=OTHER), **entry(OTHER))
        last = served.document(served.index(other, last))
    served.document(served.index(last), tag="1")
    assert got(store, containerd, f"{server.host}/x:1").config.cmd == ("deep",)


def test_an_index_that_is_nested_without_end_is_refused(
    store: Images, served: Served, server: RecordingServer
) -> None:
    last = served.document(served.manifest("deep"))
    for _ in range(50):
        last = served.document(served.index(last))
    served.document(served.index(last), tag="1")
    assert "has indexes nested more than 8 deep" in refusal(store, server).brief
    assert len(server.requests) < 20


def test_names_of_platforms_are_read_as_containerd_reads_them(
    store: Images, containerd: ContainerdDaemon, served: Served, server: RecordingServer
) -> None:
    own = platforms.machine().runs[0].architecture
    other_names = {"amd64": "X86_64", "arm64": "AArch64"}
    other = served.document(served.manifest("other"), **entry(OTHER))
    for number, said in enumerate(
        (
            entry(other_names.get(own, own.upper())),
            entry(own, system="Linux"),
            entry(own, system=""),
            entry(own, "v1" if own == "amd64" else ""),
            entry(own, more={"os.version": "10.0.1", "os.features": ["win32k"]}),
        )
    ):
        mine = served.document(served.manifest("mine"), **said)
        served.document(served.index(other, mine), tag=str(number))
        assert got(store, containerd, f"{server.host}/x:{number}").config.cmd == ("mine",)


def test_the_best_that_the_cpu_runs_is_taken(
    store: Images, containerd: ContainerdDaemon, served: Served, server: RecordingServer
) -> None:
    runs = platforms.machine().runs
    made = [
        served.document(served.manifest(str(one)), **entry(one.architecture, one.variant))
        for one in runs
    ]
    beyond = served.document(served.manifest("v9"), **entry(runs[0].architecture, "v99"))
    for number, wanted in enumerate(runs):
        left = [beyond, *made[number:][::-1]]
        served.document(served.index(*left), tag=str(number))
        image = f"{server.host}/x:{number}"
        assert got(store, containerd, image).config.cmd == (str(wanted),)


def test_a_manifest_for_another_machine_is_told_by_both_names(
    store: Images, served: Served, server: RecordingServer
) -> None:
    served.document(served.manifest("other", architecture=OTHER), tag="1")
    image = f"{server.host}/x:1"
    for policy in ("always", "never"):
        store.events.clear()
        store.get(image, image_pull_policy=policy)
        (told,) = [event for event in store.events if f"linux/{OTHER}" in event]
        assert platforms.machine().name in told
    served.document(served.manifest("own"), tag="2")
    store.events.clear()
    store.get(f"{server.host}/x:2")
    assert not any("is built for" in event for event in store.events)


def test_two_jobs_have_different_platforms_of_one_image(
    store: Images, containerd: ContainerdDaemon, served: Served, server: RecordingServer
) -> None:
    mine = served.document(served.manifest("mine"), **entry(images.host_architecture()))
    other = served.document(served.manifest("other", architecture=OTHER), **entry(OTHER))
    served.document(served.index(mine, other), tag="1")
    image, chosen = f"{server.host}/x:1", f"linux/{OTHER}"
    assert got(store, containerd, image).config.cmd == ("mine",)
    assert store.get(image, platform=chosen).config.cmd == ("other",)
    # Both are present now: no garbage collection removes one of them.
    collected(containerd)
    server.requests.clear()
    for platform, cmd in (("", "mine"), (chosen, "other")):
        ready = store.get(image, platform=platform, image_pull_policy="never")
        assert ready.config.cmd == (cmd,)
    assert server.requests == []
    assert not any("is built for" in event for event in store.events)


def test_a_present_image_of_another_platform_is_not_the_jobs(
    store: Images, served: Served, server: RecordingServer
) -> None:
    served.document(served.manifest("mine"), tag="1")
    image = f"{server.host}/x:1"
    store.get(image)
    for policy in ("never", "missing"):
        with pytest.raises(DriverError, match=f"has no manifest for linux/{OTHER}"):
            store.get(image, arch=OTHER, image_pull_policy=policy)
    assert store.get(image, image_pull_policy="never").config.cmd == ("mine",)


def test_an_index_that_lies_about_a_platform_is_told_too(
    store: Images, served: Served, server: RecordingServer
) -> None:
    said = entry(images.host_architecture())
    last = served.document(served.manifest("other", architecture=OTHER), **said)
    served.document(served.index(last), tag="1")
    store.get(f"{server.host}/x:1")
    assert any(f"built for linux/{OTHER}" in event for event in store.events)


async def test_a_task_is_told_that_its_image_is_another_machines(
    driver: Driver, served: Served, server: RecordingServer
) -> None:
    """Starts the task all the same: an emulator may be present."""
    content = images.busybox_layer({"salt": os.urandom(8)})
    served.document(served.manifest("x", content=content, architecture=OTHER), tag="1")
    async with launched(driver) as session:
        told: list[str] = []

        async def listen() -> None:
            async for event in session.events():
                told.append(event.message)  # noqa: PERF401 - read while it grows

        listening = asyncio.create_task(listen())
        assert await driver.output(f"{server.host}/x:1", "echo runs") == "runs\n"
        await until(lambda: any(f"linux/{OTHER}" in text for text in told), 10)
        listening.cancel()
        assert any(platforms.machine().name in text for text in told)


# --- documents


def keep(containerd: ContainerdDaemon, name: str, body: bytes, media_type: str) -> None:
    """Puts a document into containerd as an image, as another program may have done."""
    calls = SyncCalls(containerd.address, containerd.namespace, "")
    blob = Descriptor(media_type=media_type, digest=digest_of(body), size=len(body))
    refers = {
        f"containerd.io/gc.ref.content.{number}": one["digest"]
        for number, one in enumerate(described(json.loads(body)))
    }
    store = content_store.ContentStore(calls)
    store.write(blob, iter([body]), refers, lambda _: None)
    target = types_pb2.Descriptor(media_type=media_type, digest=blob.digest, size=blob.size)
    image = images_pb2.Image(name=name, target=target)
    request = images_pb2.CreateImageRequest(image=image)
    calls(methods.IMAGE_CREATE, request, "name an image", 30)


def described(fields: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the descriptors in a document."""
    return [
        *([fields["config"]] if "config" in fields else []),
        *(fields.get("layers") or []),
        *(fields.get("manifests") or []),
    ]


def test_more_than_a_blobs_size_is_never_stored(containerd: ContainerdDaemon) -> None:
    """Covers any source: the first piece beyond the size is refused."""
    store = content_store.ContentStore(SyncCalls(containerd.address, containerd.namespace, ""))
    body = os.urandom(3000)
    blob = Descriptor(media_type=LAYER, digest=digest_of(body), size=1000)
    pieces = iter([body[:1000], body[1000:2000], body[2000:]])
    with pytest.raises(DriverError, match="is larger than its manifest says"):
        store.write(blob, pieces, {}, lambda _: None)
    assert list(pieces) == [body[2000:]]
    assert "nomad-driver" not in containerd.ctr("content", "active")


@pytest.mark.parametrize("media_type", [INDEX, MANIFEST, "application/octet-stream", ""])
def test_a_document_of_two_kinds_is_refused_wherever_it_is(
    store: Images,
    containerd: ContainerdDaemon,
    served: Served,
    server: RecordingServer,
    media_type: str,
) -> None:
    mine = served.document(served.manifest("index"))
    both = {**served.manifest("manifest"), "manifests": [mine]}
    both.pop("mediaType")
    served.document(both, media_type, tag="1")
    assert "is ambiguous" in refusal(store, server).brief
    image = f"{server.host}/x:2"
    keep(containerd, image, json.dumps(both).encode(), media_type or MANIFEST)
    for policy in ("never", "missing"):
        with pytest.raises(DriverError, match="is ambiguous"):
            store.get(image, image_pull_policy=policy)
    containerd.ctr("images", "rm", image)


@pytest.mark.parametrize("nested", [True, False])
def test_a_document_that_is_called_what_it_is_not_is_refused(
    store: Images, served: Served, server: RecordingServer, *, nested: bool
) -> None:
    manifest = served.manifest("manifest")
    index = served.index(served.document(served.manifest("index")))
    for tag, fields, media_type in (("1", manifest, INDEX), ("2", index, MANIFEST)):
        if nested:
            last = served.document(fields, media_type)
            served.document(served.index(last), tag=tag)
        else:
            served.document(fields, media_type, tag=tag)
        assert "is ambiguous" in refusal(store, server, tag).brief


@pytest.mark.parametrize(
    "media_type",
    [
        "",
        "application/octet-stream",
        "text/plain",
        "text/plain; charset=utf-8",
        "application/json",
        MANIFEST.upper(),
        f"{MANIFEST}; charset=utf-8",
        "application/vnd.docker.distribution.manifest.v2+json",
    ],
)
def test_a_type_that_says_nothing_leaves_it_to_the_document(
    store: Images,
    containerd: ContainerdDaemon,
    served: Served,
    server: RecordingServer,
    media_type: str,
) -> None:
    last = served.document(served.manifest("typed"), media_type, tag="1")
    assert got(store, containerd, f"{server.host}/x:1").config.cmd == ("typed",)
    image = f"{server.host}/x:1"
    record = store.record(image)
    assert record is not None
    assert record.media_type in manifests.MANIFEST_TYPES
    index = served.index(last)
    index.pop("mediaType")
    served.document(index, "application/octet-stream", tag="2")
    assert got(store, containerd, f"{server.host}/x:2").config.cmd == ("typed",)


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP"])
def test_a_document_that_came_in_gzip_is_unpacked(
    store: Images, containerd: ContainerdDaemon, encoding: str
) -> None:
    """Covers a web server or a proxy that packs JSON against the request."""
    image = images.build([images.layer({"content": os.urandom(2000)})], {"Cmd": ["packed"]})

    def packed(request: Request, honest: Answer) -> Answer:
        if request.method == "HEAD" or "/manifests/" not in request.path:
            return honest
        headers = {**honest.headers, "Content-Encoding": encoding}
        return Answer(200, headers, gzip.compress(honest.body))

    with ScriptedRegistry(image, packed) as registry:
        found = got(store, containerd, f"{registry.host}/x:1")
    assert (found.digest, found.config.cmd) == (image.digest, ("packed",))


def test_a_document_that_unpacks_to_too_much_is_refused(store: Images) -> None:
    bomb = gzip.compress(b" " * (2 * manifests.DOCUMENT_LIMIT_BYTES))
    answer = Answer(200, {"Content-Encoding": "gzip", "Content-Type": MANIFEST}, bomb)
    with (
        RecordingServer(lambda _: answer) as server,
        pytest.raises(DriverError, match="sent an answer that is too large"),
    ):
        store.get(f"{server.host}/x:1")


def test_schema_1_is_refused_by_its_own_name(
    store: Images, served: Served, server: RecordingServer
) -> None:
    kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    fields = {"schemaVersion": 1, "name": "x", "fsLayers": [{"blobSum": digest_of(b"")}]}
    served.document(fields, kind, tag="1")
    assert "has a manifest of the old schema 1" in refusal(store, server).brief


@pytest.mark.parametrize(
    ("media_type", "packed"),
    [
        (LAYER, "no"),
        (LAYER, "gzip"),
        (f"{LAYER}+gzip", "no"),
        (f"{LAYER}+gzip".upper(), "gzip"),
        (f"{LAYER}+zstd", "zstd"),
        ("application/vnd.docker.image.rootfs.diff.tar", "no"),
        ("application/vnd.docker.image.rootfs.diff.tar", "gzip"),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", "gzip"),
        ("application/vnd.docker.image.rootfs.diff.tar+gzip", "gzip"),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip; charset=binary", "gzip"),
        ("application/vnd.docker.image.rootfs.diff.tar.zstd", "zstd"),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "gzip"),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "gzip"),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar", "no"),
    ],
)
def test_layers_of_every_type_are_unpacked(
    store: Images,
    containerd: ContainerdDaemon,
    served: Served,
    server: RecordingServer,
    media_type: str,
    packed: str,
) -> None:
    if packed == "zstd" and not features.of(containerd.version)[features.ZSTD]:
        pytest.skip(f"containerd {containerd.version} refuses layers compressed with zstd")
    body = images.layer({"content": os.urandom(2000)})
    packers: dict[str, Callable[[bytes], bytes]] = {
        "no": bytes,
        "gzip": gzip.compress,
        "zstd": images.zstd,
    }
    layer = served.blob(packers[packed](body), media_type)
    served.document(served.manifest("layered", [layer], body), tag="1")
    assert got(store, containerd, f"{server.host}/x:1").config.diff_ids == (digest_of(body),)


@pytest.mark.parametrize("urls", [["http://192.0.2.1/layer"], []])
def test_a_foreign_layer_that_the_registry_lacks_is_refused_by_its_name(
    store: Images, served: Served, server: RecordingServer, urls: list[str]
) -> None:
    kind = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    own = served.manifest("x")["layers"][0]
    foreign = {"mediaType": kind, "digest": digest_of(b"foreign"), "size": 7, "urls": urls}
    rootfs = {"type": "layers", "diff_ids": [digest_of(b"lower"), digest_of(b"upper")]}
    served.document(served.manifest("x", [own, foreign], rootfs=rootfs), tag="1")
    error = refusal(store, server)
    assert "has a foreign layer" in error.brief
    assert "encryption" not in str(error)
    assert ("URLs" in error.brief) == bool(urls)
    assert not any(own["digest"] in request.path for request in server.requests)


@pytest.mark.parametrize(
    "kind", [f"{LAYER}+gzip+encrypted", f"{LAYER}+encrypted", f"{LAYER}+zstd+encrypted"]
)
def test_an_encrypted_layer_is_refused_by_its_name(
    store: Images, served: Served, server: RecordingServer, kind: str
) -> None:
    layer = served.blob(os.urandom(100), kind)
    served.document(served.manifest("x", [layer]), tag="1")
    error = refusal(store, server)
    assert "has encrypted layers" in error.brief
    assert not any(layer["digest"] in request.path for request in server.requests)


@pytest.mark.parametrize("kind", ["application/octet-stream", ""])
def test_a_layer_of_a_type_that_says_nothing_makes_no_artifact(
    store: Images, served: Served, server: RecordingServer, kind: str
) -> None:
    served.document(served.manifest("x", [served.blob(os.urandom(50), kind)]), tag="1")
    error = refusal(store, server)
    assert "has a layer that cannot be unpacked" in error.brief
    assert error.details == repr(kind)


ARTIFACTS: dict[str, tuple[str, str, str, str]] = {
    "a chart": (
        "application/vnd.cncf.helm.config.v1+json",
        "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
        "",
        "application/vnd.cncf.helm.config.v1+json",
    ),
    "a signature": (
        images.CONFIG,
        "application/vnd.dev.cosign.simplesigning.v1+json",
        "",
        "application/vnd.dev.cosign.simplesigning.v1+json",
    ),
    "a module": (
        "application/vnd.wasm.config.v0+json",
        "application/wasm",
        "",
        "application/vnd.wasm.config.v0+json",
    ),
    "an SBOM": (
        "application/vnd.oci.empty.v1+json",
        "application/spdx+json",
        "application/vnd.example.sbom",
        "application/vnd.example.sbom",
    ),
    "a folder": (
        "application/vnd.unknown.config.v1+json",
        f"{LAYER}+gzip",
        "",
        "application/vnd.unknown.config.v1+json",
    ),
}


@pytest.mark.parametrize("kind", ARTIFACTS)
def test_an_artifact_is_no_image_and_is_told_by_its_type(
    store: Images, served: Served, server: RecordingServer, kind: str
) -> None:
    config, layer, artifact, told = ARTIFACTS[kind]
    fields = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": artifact,
        "config": served.blob(b"{}", config),
        "layers": [served.blob(os.urandom(50), layer)],
    }
    served.document({key: value for key, value in fields.items() if value}, tag="1")
    error = refusal(store, server)
    assert "is not an image" in error.brief
    assert told in error.details
    assert error.code is Code.UNSUPPORTED
    assert not any("/blobs/" in request.path for request in server.requests)


def test_a_mirror_without_the_best_manifest_gives_the_next_one(
    store: Images, containerd: ContainerdDaemon, served: Served, server: RecordingServer
) -> None:
    """Covers a sparse copy of an index, as on mirrors of a single platform."""
    own = images.host_architecture()
    gone = {"mediaType": MANIFEST, "digest": digest_of(b"gone"), "size": 4, **entry(own)}
    there = served.document(served.manifest("there"), **entry(own))
    served.document(served.index(gone, there), tag="1")
    assert got(store, containerd, f"{server.host}/x:1").config.cmd == ("there",)
