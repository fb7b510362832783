"""Tests of pull policies, of an absent registry, of platforms and of snapshotters."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from actors.model.nomad import TaskEvent
from actors.processes import child_process
from containerd.pull import protocol
from proto import frames
from proto.errors import Code, DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.plugin.driver import Driver, launched
from tests.support.registries import images
from tests.support.registries.archives import layout_files, tar_of
from tests.support.registries.image_store import Images
from tests.support.registries.recording_server import Answer, RecordingServer, Request
from tests.support.registries.registry import Registry
from tests.support.waiting import until

pytestmark = pytest.mark.containerd

AWAY = "127.0.0.1:1"


def pushed(registry: Registry, name: str, tag: str, text: str) -> str:
    """Pushes a small image of the text under a name and returns the digest."""
    image = images.build([images.layer({"hello": text.encode()})])
    images.push(registry.host, name, tag, image)
    return image.digest


def test_a_tag_is_pulled_once_and_latest_each_time(store: Images, registry: Registry) -> None:
    for tag, follows in (("1", False), ("latest", True)):
        first = pushed(registry, "moving", tag, f"{tag} first")
        name = f"{registry.host}/moving:{tag}"
        assert store.get(name).digest == first
        second = pushed(registry, "moving", tag, f"{tag} second")
        assert store.get(name).digest == (second if follows else first)
        assert store.get(name, image_pull_policy="missing").digest in {first, second}
        assert store.get(name, force_pull=True).digest == second


def test_never_takes_what_is_there_and_asks_nobody(store: Images, registry: Registry) -> None:
    with RecordingServer(lambda _: Answer(500)) as server:
        name = f"{server.host}/absent:1"
        with pytest.raises(DriverError, match='image_pull_policy is "never"') as caught:
            store.get(name, image_pull_policy="never")
        assert server.requests == []
    assert caught.value.brief.startswith(f"Error in pulling image {name}: ")
    assert caught.value.code is Code.NOT_FOUND
    assert not caught.value.recoverable
    digest = pushed(registry, "there", "latest", "there")
    name = f"{registry.host}/there:latest"
    store.get(name)
    events = len(store.events)
    assert store.get(name, image_pull_policy="never").digest == digest
    assert store.events[events:] == []


def test_an_image_that_ctr_imported_is_there(
    store: Images, containerd: ContainerdDaemon, tmp_path: Path
) -> None:
    image = images.build([images.layer({"hello": b"imported"})])
    archive = tmp_path / "x.tar"
    archive.write_bytes(tar_of(layout_files({"": image})))
    name = "example.com/imported:1"
    containerd.ctr("images", "import", "--index-name", name, str(archive))
    assert store.get(name, image_pull_policy="never").name == name


@pytest.mark.parametrize("code", [429, 500, 502, 503])
def test_a_registry_in_trouble_is_no_reason_not_to_start_what_is_there(
    store: Images, registry: Registry, code: int
) -> None:
    digest = pushed(registry, f"trouble{code}", "latest", f"trouble {code}")
    troubled = False

    def relay(_: Request) -> Answer:
        return Answer(code) if troubled else Answer(404)

    with RecordingServer(relay) as mirror:
        name = f"q.example/trouble{code}:latest"
        store.hosts_file(
            "q.example",
            f'server = "http://{registry.host}"\n[host."http://{mirror.host}"]',
        )
        assert store.get(name).digest == digest
        troubled = True
        store.hosts_file("q.example", f'server = "http://{mirror.host}"')
        assert store.get(name).digest == digest
        assert store.events[-1].startswith("Registry not reachable, starting the image that is")
        with pytest.raises(DriverError, match=str(code)) as caught:
            store.get(name, image_pull_policy="always", image_pull_timeout_s=3.0)
        assert caught.value.recoverable
        with pytest.raises(DriverError, match=str(code)) as caught:
            store.get(f"q.example/other{code}:1", image_pull_timeout_s=3.0)
        assert caught.value.recoverable


@pytest.mark.parametrize("code", [401, 403, 404])
def test_a_registry_that_says_no_is_final_and_words_it_as_the_original(
    store: Images, registry: Registry, code: int
) -> None:
    pushed(registry, f"refused{code}", "latest", f"refused {code}")
    name = f"q.example/refused{code}:latest"
    store.hosts_file("q.example", f'server = "http://{registry.host}"')
    store.get(name)
    with RecordingServer(lambda _: Answer(code)) as server:
        store.hosts_file("q.example", f'server = "http://{server.host}"')
        for policy in ("", "always"):
            with pytest.raises(DriverError, match="pull access denied, repository") as caught:
                store.get(name, image_pull_policy=policy)
            assert not caught.value.recoverable
            assert "does not exist or may require authorization" in caught.value.brief
            assert str(code) in caught.value.details


async def test_a_start_with_the_registry_away_has_a_warning_event(driver: Driver) -> None:
    with Registry() as registry:
        image = images.build([images.busybox_layer()])
        latest = images.push(registry.host, "away", "latest", image)
        async with launched(driver) as session:
            told: list[str] = []
            events = session.events()
            reader = asyncio.create_task(_collect(events, told))
            job = driver.task()
            await driver.start(job, latest, "true")
            await driver.end(job)
            registry.stop()
            job = driver.task()
            await driver.start(job, latest, "echo started")
            await session.wait(job.id)
            await driver.end(job)
            assert bytes(job.out) == b"started\n"
            await until(lambda: any("not reachable, starting" in t for t in told), 10)
            job = driver.task()
            with pytest.raises(DriverError, match="cannot be read") as caught:
                await session.start(job.config, {"image": latest, "force_pull": True})
            assert caught.value.recoverable
            reader.cancel()


async def _collect(events: AsyncGenerator[TaskEvent, None], into: list[str]) -> None:
    while True:
        into.append((await anext(events)).message)


# --- platforms


def two_platforms(registry: Registry, name: str) -> dict[str, images.Image]:
    """Pushes an index of two platforms, whose images print the platform."""
    built = {
        architecture: images.build(
            [images.layer({"which": f"{name} {architecture}".encode()})],
            {"Cmd": [architecture]},
            architecture=architecture,
        )
        for architecture in ("arm64", "amd64")
    }
    images.push(registry.host, name, "1", images.index(built))
    return built


def test_of_two_platforms_this_machines_is_taken(store: Images, registry: Registry) -> None:
    two_platforms(registry, "two")
    ready = store.get(f"{registry.host}/two:1")
    assert ready.config.cmd == (images.host_architecture(),)


@pytest.mark.parametrize(("machine", "architecture"), [("x86_64", "amd64"), ("aarch64", "arm64")])
def test_each_of_two_platforms_can_be_pulled(
    containerd: ContainerdDaemon, registry: Registry, machine: str, architecture: str
) -> None:
    built = two_platforms(registry, f"each-{architecture}")
    # Without a lease, another test's collection may remove content that no image refers to yet.
    containerd.ctr("leases", "create", "--id", f"each-{architecture}")
    request = protocol.PullRequest(
        reference=f"{registry.host}/each-{architecture}:1",
        address=containerd.address,
        namespace=containerd.namespace,
        snapshotter="overlayfs",
        lease=f"each-{architecture}",
        platform=machine,
        timeout_s=60,
        silence_s=30,
        labels={},
    )
    result = protocol.PullResult.from_wire(_last_event(request))
    assert result.config_digest in built[architecture].blobs
    listed = containerd.ctr("content", "list", "-q")
    other = next(image for name, image in built.items() if name != architecture)
    assert built[architecture].digest in listed
    assert other.digest not in listed
    containerd.ctr("leases", "delete", f"each-{architecture}")


def _last_event(request: protocol.PullRequest) -> frames.Frame:
    """Returns the last event of a puller process, which runs on while stdin is open."""
    program = child_process.ROOT / "containerd" / "puller.py"
    pipe = child_process.PIPE
    child = child_process.start([sys.executable, "-I", str(program)], stdin=pipe, stdout=pipe)
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(frames.encode(request.to_wire()))
    child.stdin.flush()
    with child.stdout:
        events = list(frames.Decoder().feed(child.stdout.read()))
    assert child_process.finish(child, 10) == 0, events
    return events[-1]


def test_an_image_for_other_machines_says_which(store: Images, registry: Registry) -> None:
    image = images.build([images.layer({"x": b"s390x"})], architecture="s390x")
    images.push(registry.host, "foreign", "1", images.index({"s390x": image}))
    with pytest.raises(DriverError, match="has no manifest for linux/") as caught:
        store.get(f"{registry.host}/foreign:1")
    assert "platforms of the image: linux/s390x" in caught.value.details
    assert not caught.value.recoverable


# --- snapshotters


async def test_the_tasks_snapshotter_wins_over_the_drivers(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        await driver.start(job, busybox_image, "echo native", snapshotter="native")
        info = driver.daemon.ctr("containers", "info", job.container)
        assert '"Snapshotter": "native"' in info
        await session.wait(job.id)
        await driver.end(job)
        assert bytes(job.out) == b"native\n"
        left = driver.daemon.ctr("snapshots", "--snapshotter", "native", "list")
        assert job.container not in left


def test_an_unknown_snapshotter_is_an_error_that_names_those_there_are(
    store: Images, containerd: ContainerdDaemon, tmp_path: Path
) -> None:
    for made, options in (
        (store, {"snapshotter": "stargz"}),
        (Images(containerd, tmp_path, snapshotter="stargz"), {}),
    ):
        with pytest.raises(DriverError, match='containerd has no snapshotter "stargz"') as caught:
            made.get(f"{AWAY}/x:1", **options)
        assert {"native", "overlayfs"} <= set(caught.value.details.partition(": ")[2].split(", "))
        assert caught.value.code is Code.INVALID
        assert made.events == []


def test_a_pull_logs_its_steps(
    store: Images, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "actors.images.pullers")
    image = images.build([images.layer({"x": b"steps"})])
    images.push(registry.host, "steps", "1", image)
    store.get(f"{registry.host}/steps:1")
    lines = [vars(record) for record in caplog.records if record.message.startswith("pull: ")]
    steps = [line["message"].removeprefix("pull: ") for line in lines]
    assert steps == ["image chosen", "layers unpacked", "image named"]
    assert {line["image"] for line in lines} == {f"{registry.host}/steps:1"}
    assert all(type(line["elapsed_ms"]) is int for line in lines)
