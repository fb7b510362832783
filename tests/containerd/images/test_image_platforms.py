"""Tests of images of several platforms: the choice, and the absence of this machine's platform."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from containerd.image import platforms
from proto.errors import DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.plugin.driver import Driver, launched
from tests.support.registries import images
from tests.support.registries.image_store import Images, collected, got, refusal
from tests.support.registries.images import FOREIGN
from tests.support.registries.recording_server import RecordingServer
from tests.support.registries.served_images import Served, entry
from tests.support.waiting import until

pytestmark = pytest.mark.containerd


@pytest.mark.parametrize("said", [None, {}, {"os": "linux"}])
def test_an_entry_without_platform_is_a_candidate(
    store: Images, containerd: ContainerdDaemon, served: Served, server: RecordingServer, said: Any
) -> None:
    mine = served.document(served.manifest("mine"), platform=said)
    arm = served.document(served.manifest("other", architecture=FOREIGN), **entry(FOREIGN))
    bare = served.document(served.manifest("bare", architecture=FOREIGN), platform=said)
    statement = served.document(served.manifest("evil"), **entry("unknown", system="unknown"))
    served.document(served.index(statement, arm, bare, mine), tag="1")
    assert got(store, containerd, f"{server.host}/x:1").config.cmd == ("mine",)


def test_an_image_of_other_machines_only_says_what_it_has(
    store: Images, served: Served, server: RecordingServer
) -> None:
    bare = served.document(served.manifest("bare", architecture=FOREIGN))
    windows = served.document(served.manifest("w"), **entry("amd64", system="windows"))
    statement = served.document(served.manifest("evil"), **entry("unknown", system="unknown"))
    served.document(served.index(statement, bare, windows), tag="1")
    error = refusal(store, server)
    assert f"has no manifest for {platforms.machine().name}" in error.brief
    assert error.details == f"platforms of the image: linux/{FOREIGN}, windows/amd64"


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
        other = served.document(served.manifest("other", architecture=FOREIGN), **entry(FOREIGN))
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
    other = served.document(served.manifest("other"), **entry(FOREIGN))
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
    served.document(served.manifest("other", architecture=FOREIGN), tag="1")
    image = f"{server.host}/x:1"
    for policy in ("always", "never"):
        store.events.clear()
        store.get(image, image_pull_policy=policy)
        (told,) = [event for event in store.events if f"linux/{FOREIGN}" in event]
        assert platforms.machine().name in told
    served.document(served.manifest("own"), tag="2")
    store.events.clear()
    store.get(f"{server.host}/x:2")
    assert not any("is built for" in event for event in store.events)


def test_two_jobs_have_different_platforms_of_one_image(
    store: Images, containerd: ContainerdDaemon, served: Served, server: RecordingServer
) -> None:
    mine = served.document(served.manifest("mine"), **entry(images.host_architecture()))
    other = served.document(served.manifest("other", architecture=FOREIGN), **entry(FOREIGN))
    served.document(served.index(mine, other), tag="1")
    image, chosen = f"{server.host}/x:1", f"linux/{FOREIGN}"
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
        with pytest.raises(DriverError, match=f"has no manifest for linux/{FOREIGN}"):
            store.get(image, arch=FOREIGN, image_pull_policy=policy)
    assert store.get(image, image_pull_policy="never").config.cmd == ("mine",)


def test_an_index_that_lies_about_a_platform_is_told_too(
    store: Images, served: Served, server: RecordingServer
) -> None:
    said = entry(images.host_architecture())
    last = served.document(served.manifest("other", architecture=FOREIGN), **said)
    served.document(served.index(last), tag="1")
    store.get(f"{server.host}/x:1")
    assert any(f"built for linux/{FOREIGN}" in event for event in store.events)


async def test_a_task_is_told_that_its_image_is_another_machines(
    driver: Driver, served: Served, server: RecordingServer
) -> None:
    """Starts the task all the same: an emulator may be present."""
    content = images.busybox_layer({"salt": os.urandom(8)})
    served.document(served.manifest("x", content=content, architecture=FOREIGN), tag="1")
    async with launched(driver) as session:
        told: list[str] = []

        async def listen() -> None:
            async for event in session.events():
                told.append(event.message)  # noqa: PERF401 - read while it grows

        listening = asyncio.create_task(listen())
        assert await driver.output(f"{server.host}/x:1", "echo runs") == "runs\n"
        await until(lambda: any(f"linux/{FOREIGN}" in text for text in told), 10)
        listening.cancel()
        assert any(platforms.machine().name in text for text in told)
