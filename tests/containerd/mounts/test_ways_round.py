"""Ways round the look at targets: copies, devices, shared memory of the host, unusual paths."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proto.errors import DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.needs import need_program
from tests.support.plugin.driver import Driver, Job, launched
from tests.support.registries import images
from tests.support.registries.registry import Registry

pytestmark = pytest.mark.containerd


@pytest.fixture
def strict(runtimes_daemon: ContainerdDaemon, tmp_path: Path) -> Iterator[Driver]:
    """Yields a driver that runs no privileged task."""
    modes = {"ipc": ["host"]}
    made = Driver(runtimes_daemon, tmp_path, {"allow_privileged": False, "allowed_modes": modes})
    try:
        yield made
        made.wait_clean()
    finally:
        made.close()


@pytest.fixture(params=["runc", "crun"])
def visible(request: pytest.FixtureRequest) -> str:
    """Returns a runtime whose mounts the kernel lists."""
    name = str(request.param)
    need_program(name)
    return name


def image_with(registry: Registry, name: str, entries: dict[str, images.Entry]) -> str:
    built = images.build([images.busybox_layer(entries)])
    return images.push(registry.host, "ways-round", name, built)


def mount(target: str) -> dict[str, Any]:
    return {"type": "bind", "source": "local", "target": target, "options": ["rbind", "rw"]}


async def refusal(driver: Driver, job: Job, image: str, **options: Any) -> str:
    """Returns the reason why a task does not start, and checks that nothing of the task is left."""
    with pytest.raises(DriverError) as caught:
        await driver.start(job, image, "echo ran", **options)
    assert "the containerd driver failed inside" not in str(caught.value)
    driver.wait_clean()
    return str(caught.value)


COPY = {"type": "tmpfs", "options": ["tmpcopyup", "size=1m"]}
FULL = {"host_path": "/dev/full"}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"mounts": [{**COPY, "target": "/a"}, mount("/a/x")]}, "container's own"),
        ({"mounts": [{**COPY, "target": "/a"}, mount("/a/x/pts")]}, "container's own"),
        ({"mounts": [{**COPY, "target": "/local"}]}, "tmpcopyup of '/local'"),
        ({"mounts": [{**COPY, "target": "/alloc/data"}]}, "tmpcopyup of '/alloc/data'"),
        ({"devices": [{**FULL, "container_path": "/a/x/null"}]}, "container's own"),
        ({"devices": [{**FULL, "container_path": "/a/x"}]}, "container's own"),
        ({"mounts": [mount("/" + "n" * 300)]}, "File name too long"),
        ({"mounts": [mount("/long/x")]}, "File name too long"),
        ({"mounts": [mount("/d" * 129)]}, "more than 128 names"),
    ],
)
async def test_no_copy_no_device_and_no_long_path_is_a_way_round_the_look(
    strict: Driver, registry: Registry, visible: str, options: dict[str, Any], why: str
) -> None:
    links: dict[str, images.Entry] = {"a": None, "a/x": "/dev", "long": "/" + "n" * 300}
    image = image_with(registry, "ways-round", links)
    async with launched(strict):
        assert why in await refusal(strict, strict.task(), image, runtime=visible, **options)


@pytest.mark.parametrize("target", ["/dev/shm/containerd-driver-test/x", "/link/x"])
async def test_a_task_that_sees_the_hosts_shared_memory_makes_nothing_there(
    strict: Driver, registry: Registry, visible: str, target: str
) -> None:
    place = "/dev/shm/containerd-driver-test"
    image = image_with(registry, "shared-memory", {"link": place})
    ways: tuple[dict[str, Any], ...] = (
        {"mounts": [mount(target)]},
        {"mounts": [{"type": "tmpfs", "target": target, "options": ["size=64k"]}]},
        {"devices": [{"host_path": "/dev/full", "container_path": target}]},
    )
    async with launched(strict):
        for way in ways:
            job = strict.task()
            said = await refusal(strict, job, image, runtime=visible, ipc_mode="host", **way)
            assert "lies in the host's /dev/shm" in said
            assert not Path(place).exists()


@pytest.mark.parametrize("at", ["/ro", "/etc"])
async def test_nothing_is_made_in_a_mount_that_is_read_only(
    strict: Driver, busybox_image: str, visible: str, at: str
) -> None:
    """Covers crun, which makes such a bind read-only only after making the targets inside."""
    async with launched(strict):
        job = strict.task()
        shown = Path(job.config.alloc_dir) / "t/local/dir"
        shown.mkdir()
        wanted = [
            {**mount(at), "source": "local/dir", "options": ["rbind", "ro"]},
            *([mount("/ro/deep/er")] if at == "/ro" else ()),
        ]
        said = await refusal(strict, job, busybox_image, runtime=visible, mounts=wanted)
        assert f"does not exist in the read-only mount at '{at}'" in said
        assert list(shown.iterdir()) == []
        job = strict.task()
        for name in ("hosts", "hostname", "resolv.conf", "deep/er"):
            path = Path(job.config.alloc_dir) / "t/local/dir" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir() if name == "deep/er" else path.touch()
        await strict.start(job, busybox_image, "echo ran", runtime=visible, mounts=wanted)
        await strict.session.wait(job.id)
        await strict.end(job)
        assert (bytes(job.out), bytes(job.err)) == (b"ran\n", b"")


async def test_a_link_of_unusual_signs_and_a_device_behind_a_link_are_right(
    strict: Driver, registry: Registry, visible: str
) -> None:
    """Covers characters in the kernel's list of mounts that other programs take for line ends."""
    links: dict[str, images.Entry] = {"f": "/q\x0cw", "r": "/q\rw", "n": "/q\nw", "u": "/q\u2028w"}
    image = image_with(registry, "signs", {**links, "places": "/tmp"})
    async with launched(strict):
        job = strict.task()
        await strict.start(
            job,
            image,
            "test -c /tmp/full && echo ran",
            runtime=visible,
            mounts=[*(mount(f"/{name}") for name in links), {**COPY, "target": "/root"}],
            devices=[{**FULL, "container_path": "/places/full"}],
        )
        await strict.session.wait(job.id)
        await strict.end(job)
        assert (bytes(job.out), bytes(job.err)) == (b"ran\n", b"")
