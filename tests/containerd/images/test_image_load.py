"""Images from archives of the job's own: real puller, real containerd."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from proto.errors import Code, DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.plugin.driver import Driver, launched
from tests.support.registries import images
from tests.support.registries.archives import (
    docker_files,
    layout_files,
    skopeo_directory,
    tar_of,
    two_layers,
    write_directory,
)
from tests.support.registries.image_store import Images, loaded
from tests.support.registries.images import FOREIGN
from tests.support.registries.registry import Registry

pytestmark = pytest.mark.containerd


@pytest.fixture
def store(containerd: ContainerdDaemon, tmp_path: Path) -> Images:
    """Images for a task with a local directory."""
    made = Images(containerd, tmp_path)
    (made.task_directory / "local").mkdir(parents=True)
    return made


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
    files = dict(layout_files({"": image}))
    first = json.loads(image.body)["layers"][0]["digest"]
    files[f"blobs/sha256/{first[7:]}"] = image.blobs[first][:-1] + b"\xff"
    (store.task_directory / "local/img.tar").write_bytes(tar_of(files.items()))
    with pytest.raises(DriverError, match="archive is refused") as caught:
        store.get("mine:1", load="img.tar")
    assert "a blob does not match its digest" in caught.value.details
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
    with pytest.raises(DriverError, match="does not match the image's config"):
        store.get("mine:1", load="img.tar")


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("platforms", [True, False])
def test_skopeos_directory_is_loaded(store: Images, *, packed: bool, platforms: bool) -> None:
    """Loads the format of `podman save --format docker-dir` too."""
    salt = f"dir {packed} {platforms}"
    image = images.build(two_layers(salt))
    whole = images.index({images.host_architecture(): image}) if platforms else image
    if packed:
        assert loaded(store, skopeo_directory(whole)).digest == whole.digest
    else:
        write_directory(store.task_directory / "local/img", skopeo_directory(whole))
        assert store.get("mine:1", load="img").digest == whole.digest


@pytest.mark.parametrize("named", [True, False])
def test_what_containerd_exports_is_loaded(
    store: Images, containerd: ContainerdDaemon, registry: Registry, *, named: bool
) -> None:
    """Loads an archive of `ctr images export`, which is `nerdctl save`."""
    own, other = (
        images.build(two_layers(f"{name} {named}"), {"Cmd": [name]}, architecture)
        for name, architecture in (
            ("own", images.host_architecture()),
            ("other", FOREIGN),
        )
    )
    whole = images.index({FOREIGN: other, images.host_architecture(): own})
    name = images.push(registry.host, "exported", f"{named}".lower(), whole)
    store.get(name)
    path = store.task_directory / "local/img.tar"
    containerd.ctr("images", "export", str(path), name)
    containerd.ctr("images", "rm", "--sync", name)
    assert store.get(name if named else "mine:1", load="img.tar").config.cmd == ("own",)


def test_an_archive_of_files_says_what_to_use(store: Images) -> None:
    with pytest.raises(DriverError, match="archive is refused") as caught:
        loaded(store, [("etc/passwd", b""), ("bin/sh", b"")])
    assert "`docker export`" in caught.value.details
    assert "docker save" in caught.value.resolution


SPARSE = 1 << 43  # possible in a file system, beyond any test's disk


@pytest.mark.timeout(60)
@pytest.mark.parametrize("form", ["oci", "lie", "docker"])
def test_w8_a_file_that_is_longer_than_its_manifest_says_is_refused_at_once(
    store: Images, containerd: ContainerdDaemon, form: str
) -> None:
    """Covers a sparse file of terabytes: free for the author, but filling containerd's disk."""
    root = store.task_directory / "local/img"
    layers = two_layers(f"sparse {form}")
    if form == "docker":
        files = docker_files(layers)
        place = json.loads(dict(files)["manifest.json"])[0]["Layers"][0]
    else:
        image = images.build(layers)
        manifest = json.loads(image.body)
        place = f"blobs/sha256/{manifest['layers'][0]['digest'][7:]}"
        if form == "lie":
            manifest["layers"][0]["size"] = SPARSE
            image = images.Image(json.dumps(manifest).encode(), image.media_type, image.blobs)
        files = layout_files({"": image})
    write_directory(root, files)
    os.truncate(root / place, SPARSE)
    before = stored(containerd)
    with pytest.raises(DriverError, match="archive is refused") as caught:
        store.get("mine:1", load="img")
    assert not caught.value.recoverable
    assert "bytes, but its manifest states" in str(caught.value) or "64 GiB" in str(caught.value)
    assert stored(containerd) - before < 64 * 1024 * 1024
    assert "nomad-driver" not in containerd.ctr("content", "active")


def stored(containerd: ContainerdDaemon) -> int:
    """Returns the bytes on disk of containerd's content store, half-written content included."""
    files = (containerd.base / "root/io.containerd.content.v1.content").rglob("*")
    return sum(path.lstat().st_blocks * 512 for path in files if path.is_file())


def test_an_archive_never_answers_for_a_registrys_name(store: Images, registry: Registry) -> None:
    """Keeps a job's own `redis` away from other jobs."""
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


async def test_a_task_runs_from_an_archive_in_its_local_directory(driver: Driver) -> None:
    async with launched(driver) as session:
        job = driver.task()
        local = Path(job.config.alloc_dir) / job.config.name / "local"
        (local / "box.tar").write_bytes(tar_of(docker_files([images.busybox_layer()])))
        await driver.start(job, "box:1", "echo from an archive", load="local/box.tar")
        await session.wait(job.id)
        await driver.end(job)
        assert bytes(job.out) == b"from an archive\n"


async def test_a_start_without_its_archive_says_so_and_leaves_nothing(driver: Driver) -> None:
    async with launched(driver) as session:
        for load, words in (
            ("none.tar", "load: no 'none.tar' in the task's directory"),
            ("../../x.tar", "is not a path beneath the task's directory"),
            ("/etc/shadow", "is not a path beneath the task's directory"),
        ):
            job = driver.task()
            with pytest.raises(DriverError, match=words) as caught:
                await session.start(job.config, {"image": "box:1", "load": load})
            assert not caught.value.recoverable
        driver.wait_clean()
