"""Images from archives of the job's own: real puller, real containerd."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from proto.errors import Code, DriverError
from tests.support import images
from tests.support.archives import docker_files, layout_files, tar_of, write_directory
from tests.support.containerd_daemon import ContainerdDaemon
from tests.support.driver import Driver, launched
from tests.support.image_store import Images
from tests.support.registry import Registry

pytestmark = pytest.mark.containerd


@pytest.fixture
def store(containerd: ContainerdDaemon, tmp_path: Path) -> Images:
    """Images for a task with a local directory."""
    made = Images(containerd, tmp_path)
    (made.task_directory / "local").mkdir(parents=True)
    return made


def two_layers(text: str) -> list[bytes]:
    """Layers that no other test has."""
    return [images.layer({"one": text.encode()}), images.layer({"two": text.encode() * 1000})]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("form", ["docker", "oci"])
def test_an_archive_is_loaded_and_unpacked(
    store: Images, form: str, pack: Callable[[bytes], bytes]
) -> None:
    layers = two_layers(f"{form} {pack}")
    image = images.build(layers, {"Cmd": ["x"]})
    files = (
        docker_files(layers, config={"Cmd": ["x"]})
        if form == "docker"
        else layout_files({"": image})
    )
    (store.task_directory / "local/img.tar").write_bytes(pack(tar_of(files)))
    ready = store.get("example.com/mine:1", load="img.tar")
    assert ready.config.cmd == ("x",)
    assert ready.config.diff_ids == tuple(images.digest_of(layer) for layer in layers)
    assert ready.name == f"loaded/example.com/mine@{ready.digest}"
    assert store.get("example.com/mine:1", load="local/img.tar") == ready
    assert any(event.startswith(f"Image {ready.digest} loaded") for event in store.events)


def test_a_layout_directory_is_loaded(store: Images) -> None:
    image = images.build(two_layers("directory"))
    write_directory(store.task_directory / "local/img", layout_files({"": image}))
    assert store.get("mine:1", load="img").digest == image.digest


def test_an_archive_with_two_platforms_brings_this_machines(store: Images) -> None:
    amd, arm = (
        images.build(two_layers(name), {"Cmd": [name]}, architecture=name)
        for name in ("amd64", "arm64")
    )
    whole = images.index({"amd64": amd, "arm64": arm})
    (store.task_directory / "local/img.tar").write_bytes(tar_of(layout_files({"": whole})))
    assert store.get("mine:1", load="img.tar").config.cmd == (images.host_architecture(),)


def test_a_layer_that_is_not_its_digest_is_refused(store: Images) -> None:
    layers = two_layers("swapped")
    image = images.build(layers)
    other = gzip.compress(images.layer({"one": b"evil"}))
    files = dict(layout_files({"": image}))
    first = json.loads(image.body)["layers"][0]["digest"]
    files[f"blobs/sha256/{first[7:]}"] = other
    (store.task_directory / "local/img.tar").write_bytes(tar_of(files.items()))
    with pytest.raises(DriverError, match="archive is refused") as caught:
        store.get("mine:1", load="img.tar")
    assert "a blob is not what its digest says" in caught.value.details
    assert caught.value.code is Code.CORRUPT


def test_a_docker_layer_that_is_not_its_diff_id_is_refused(store: Images) -> None:
    files = dict(docker_files(two_layers("diff id")))
    place = next(name for name in files if name.endswith("/layer.tar"))
    files[place] = images.layer({"one": b"evil"})
    (store.task_directory / "local/img.tar").write_bytes(tar_of(files.items()))
    with pytest.raises(DriverError, match="archive is refused"):
        store.get("mine:1", load="img.tar")


def test_a_config_that_is_not_its_layers_is_refused(store: Images) -> None:
    image = images.build(two_layers("config"))
    manifest = json.loads(image.body)
    manifest["layers"].reverse()
    swapped = images.Image(json.dumps(manifest).encode(), image.media_type, image.blobs)
    (store.task_directory / "local/img.tar").write_bytes(tar_of(layout_files({"": swapped})))
    with pytest.raises(DriverError, match="is not what the image's config says"):
        store.get("mine:1", load="img.tar")


def test_an_archive_never_answers_for_a_registrys_name(store: Images, registry: Registry) -> None:
    """A job that brings its own `redis` must not give it to other jobs."""
    good = images.build(two_layers("the registry's"))
    name = images.push(registry.host, "poisoned", "1", good)
    evil = images.build(two_layers("the job's own"))
    body = tar_of(layout_files({name: evil}))
    (store.task_directory / "local/img.tar").write_bytes(body)
    assert store.get(name, load="img.tar").digest == evil.digest
    assert store.record(name) is None
    with pytest.raises(DriverError, match='image_pull_policy is "never"'):
        store.get(name, image_pull_policy="never")
    assert store.get(name).digest == good.digest
    assert store.get(name, load="img.tar").digest == evil.digest
    assert store.get(name, image_pull_policy="never").digest == good.digest


def test_a_link_to_a_file_of_the_host_is_not_read(store: Images, tmp_path: Path) -> None:
    outside = tmp_path / "outside.tar"
    outside.write_bytes(tar_of(docker_files(two_layers("outside"))))
    (store.task_directory / "local/img.tar").symlink_to(outside)
    with pytest.raises(DriverError, match="cannot be opened") as caught:
        store.get("mine:1", load="img.tar")
    assert "over a link" in caught.value.details


def test_a_task_runs_from_an_archive_in_its_local_directory(driver: Driver) -> None:
    async def life() -> None:
        async with launched(driver) as session:
            job = driver.task()
            local = Path(job.config.alloc_dir) / job.config.name / "local"
            (local / "box.tar").write_bytes(tar_of(docker_files([images.busybox_layer()])))
            await driver.start(job, "box:1", "echo from an archive", load="local/box.tar")
            await session.wait(job.id)
            await driver.end(job)
            assert bytes(job.out) == b"from an archive\n"

    asyncio.run(life())


def test_a_start_without_its_archive_says_so_and_leaves_nothing(driver: Driver) -> None:
    async def life() -> None:
        async with launched(driver) as session:
            for load, words in (
                ("none.tar", "there is no 'none.tar' in the task's directory"),
                ("../../x.tar", "is not a path beneath the task's directory"),
                ("/etc/shadow", "is not a path beneath the task's directory"),
            ):
                job = driver.task()
                with pytest.raises(DriverError, match=words) as caught:
                    await session.start(job.config, {"image": "box:1", "load": load})
                assert not caught.value.recoverable
            driver.wait_clean()

    asyncio.run(life())
