"""Snapshots of every snapshotter, mounted for a view and unmounted after the view."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from containerd import syscalls
from containerd.api.records import Mount
from containerd.rootfs.view import read_root
from proto.errors import Code, DriverError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def names(mounts: tuple[Mount, ...]) -> set[str]:
    """Returns the names in the root."""

    def read(root: int) -> set[str]:
        place = syscalls.openat2(root, ".", os.O_RDONLY, syscalls.RESOLVE_IN_ROOT)
        try:
            return set(os.listdir(place))  # noqa: PTH208 - of a descriptor
        finally:
            os.close(place)

    before = view_places()
    found = read_root(mounts, read)
    assert view_places() == before
    return found


def view_places() -> list[str]:
    """Returns the mounts at /sys and below, the only places of a view."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if Path(line.split()[4]).is_relative_to("/sys")]


def directory(path: Path, *files: str) -> str:
    """Creates a directory with these files."""
    path.mkdir(parents=True)
    for name in files:
        (path / name).write_text(name)
    return str(path)


def overlay(*options: str, kind: str = "overlay") -> tuple[Mount, ...]:
    return (Mount(type=kind, source="overlay", options=options),)


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Creates as many layers as the kernel takes, at a long path; the uppermost first."""
    place = tmp_path_factory.mktemp("x" * 200)
    return [directory(place / str(number), f"f{number}") for number in range(500)]


@pytest.mark.parametrize("count", [1, 2, 53, 200, 499])
def test_every_layer_is_there_and_the_upper_directory_stays_as_it_was(
    layers: list[str], tmp_path: Path, count: int
) -> None:
    upper = directory(tmp_path / "upper", "written")
    work = directory(tmp_path / "work")
    lower = ":".join(layers[:count])
    options = (f"workdir={work}", f"upperdir={upper}", f"lowerdir={lower}", "index=off", "volatile")
    expected = {f"f{number}" for number in range(count)}
    assert names(overlay(*options)) == {*expected, "written"}
    assert names(overlay(f"lowerdir={lower}", "fsync=volatile")) == expected
    assert not list(Path(work).iterdir())


def test_overlays_of_helper_programs_are_read_as_the_kernels(tmp_path: Path) -> None:
    one, two = directory(tmp_path / "1", "one"), directory(tmp_path / "2", "two")
    options = (f"lowerdir={one}:{two}", "extraoption=eyJ4Ijp7fX0=")
    for kind in ("fuse3.fuse-overlayfs", "fuse.nydus-overlayfs"):
        assert names(overlay(*options, kind=kind)) == {"one", "two"}


def test_a_colon_or_a_backslash_in_a_layers_path_is_its_own(tmp_path: Path) -> None:
    odd = directory(tmp_path / "a:b", "colon"), directory(tmp_path / "c\\d", "backslash")
    escaped = ":".join(path.replace("\\", "\\\\").replace(":", "\\:") for path in odd)
    assert names(overlay(f"lowerdir={escaped}")) == {"colon", "backslash"}


def test_a_mount_with_a_target_lies_in_the_one_before(tmp_path: Path) -> None:
    root, inner = directory(tmp_path / "root"), directory(tmp_path / "inner", "file")
    (tmp_path / "root" / "sub").mkdir()
    mounts = (
        Mount(type="bind", source=root, options=("rbind", "rw")),
        Mount(type="bind", source=inner, options=("bind", "ro"), target="/sub"),
    )
    assert names(mounts) == {"sub"}
    found = read_root(mounts, lambda root: os.stat("sub/file", dir_fd=root).st_size)
    assert found == len("file")
    assert not list((tmp_path / "root" / "sub").iterdir())


@pytest.fixture
def ext4(tmp_path: Path) -> Path:
    """Creates an ext4 image with a single file."""
    content = directory(tmp_path / "content", "of-ext4")
    image = tmp_path / "fs.img"
    with image.open("wb") as file:
        file.truncate(4 * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", "-d", content, image], check=True)
    return image


def test_a_file_with_a_file_system_is_read_and_can_be_mounted_writable_at_once(
    ext4: Path, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    before = ext4.read_bytes()
    for _ in range(3):
        mount = Mount(type="ext4", source=str(ext4), options=("rw", "loop", "discard"))
        assert names((mount,)) == {"of-ext4", "lost+found"}
    assert ext4.read_bytes() == before
    loops = subprocess.run(["losetup", "-j", ext4], check=True, capture_output=True, text=True)
    assert loops.stdout == ""


def test_a_block_device_is_free_for_the_task_after_the_look(ext4: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    made = subprocess.run(["losetup", "-f", "--show", ext4], check=True, capture_output=True)
    device = made.stdout.decode().strip()
    try:
        for _ in range(3):
            mount = Mount(type="ext4", source=device, options=("rw", "noatime"))
            assert names((mount,)) == {"of-ext4", "lost+found"}
            syscalls.mount(device, str(place), "ext4", 0)
            syscalls.unmount(str(place))
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


def test_mounts_that_refer_to_each_other_are_read_without_their_writers_parts(
    ext4: Path, tmp_path: Path
) -> None:
    """Reads mounts of the erofs snapshotter of containerd 2.2 and later."""
    layer = directory(tmp_path / "layer", "of-layer")
    options = (
        "X-containerd.mkdir.path={{ mount 0 }}/upper:0755",
        "X-containerd.mkdir.path={{ mount 0 }}/work:0755",
        "workdir={{ mount 0 }}/work",
        "upperdir={{ mount 0 }}/upper",
    )
    mkfs = Mount(type="mkfs/ext4", source="/nowhere", options=("X-containerd.mkfs.fs=ext4", "loop"))
    lower = (
        Mount(type="ext4", source=str(ext4), options=("ro", "loop")),
        Mount(type="bind", source=layer, options=("ro", "rbind")),
    )
    every = {"of-ext4", "lost+found", "of-layer"}
    for lowerdir in ("lowerdir={{ overlay 1 2 }}", "lowerdir={{overlay 2 1}}"):
        last = Mount(type="format/mkdir/overlay", source="o", options=(*options, lowerdir))
        assert names((mkfs, *lower, last)) == every
    last = Mount(type="format/overlay", source="o", options=("lowerdir={{ mount 0 }}",))
    assert names((lower[0], last)) == {"of-ext4", "lost+found"}
    bind = Mount(type="format/bind", source="{{ mount 0 }}", options=("rbind",))
    assert names((lower[1], bind)) == {"of-layer"}
    wrong = Mount(type="format/bind", source="{{ mount 7 }}", options=("rbind",))
    with pytest.raises(DriverError, match="does not refer to an earlier mount"):
        names((lower[1], wrong))


@pytest.mark.parametrize("kind", ["nothing", "ext4", "overlay"])
def test_what_cannot_be_mounted_is_told_with_its_type(tmp_path: Path, kind: str) -> None:
    source = directory(tmp_path / "s")
    mount = Mount(type=kind, source=source, options=(f"lowerdir={source}/gone:{source}",))
    with pytest.raises(
        DriverError, match=f"cannot mount the image.s snapshot to read the image: type '{kind}'"
    ) as e:
        read_root((mount,), lambda root: root)
    assert e.value.code is Code.UNSUPPORTED


def test_the_readers_failure_is_the_callers(tmp_path: Path) -> None:
    mount = Mount(type="bind", source=str(tmp_path), options=("rbind",))
    with pytest.raises(FileNotFoundError):
        read_root((mount,), lambda root: os.stat("nothing", dir_fd=root))
