"""Targets of mounts in an image and in other mounts, with links followed or refused."""

from __future__ import annotations

import dataclasses
import os
import posixpath
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerd.spec import root_links, targets
from containerd.spec.mounts import MountPoint, Reach, is_reserved
from containerd.spec.targets import ABSENT, DIRECTORY, Entry, Kind
from proto.errors import DriverError


def link(text: str) -> Entry:
    return Entry(Kind.LINK, text)


def place(
    written: Mapping[str, str],
    image: Mapping[str, str] | None = None,
    below: Mapping[str, str] | None = None,
    reach: Reach = Reach.JOB,
    plain: tuple[str, ...] = (),
) -> dict[str, str]:
    """Returns the final path of each target.

    Args:
        written: kinds, bind or tmpfs, by target.
        image: links of the image by path.
        below: links inside mounts by path.
        reach: the reach of all mounts.
        plain: see `targets.place`.
    """
    points = [MountPoint(target=target, type=kind, reach=reach) for target, kind in written.items()]

    def inspect(path: str) -> Entry:
        text = (image or {}).get(path, "")
        return link(text) if text else ABSENT

    def inspect_below(point: MountPoint, path: str) -> Entry:
        text = (below or {}).get(f"{point.target}/{path}", "")
        return link(text) if text else DIRECTORY

    placed = targets.resolve(points, inspect, inspect_below, plain=plain)
    return dict(zip(written, (point.target for point in placed), strict=True))


def test_a_target_without_links_stays() -> None:
    written = {"/local": "bind", "/local/a/b": "bind", "/dev/shm": "tmpfs", "/x": "tmpfs"}
    assert place(written) == {target: target for target in written}


def test_links_of_the_image_are_followed() -> None:
    image = {
        "/var/run": "/run",
        "/lib": "usr/lib",
        "/chain": "var/run/../run/x",
        "/etc/r": "../run/s",
    }
    written = {
        "/var/run/docker.sock": "bind",
        "/lib/x": "bind",
        "/chain/y": "bind",
        "/etc/r": "bind",
    }
    assert list(place(written, image).values()) == [
        "/run/docker.sock",
        "/usr/lib/x",
        "/run/x/y",
        "/run/s",
    ]
    assert place({"/run/shm": "tmpfs"}, {"/run/shm": "/dev/shm"}) == {"/run/shm": "/dev/shm"}


def test_what_a_mount_hides_is_not_followed_and_what_it_shows_is() -> None:
    image = {"/a/b": "/etc", "/t/b": "/etc"}
    below = {"/a/c": "/tmp"}
    written = {"/a": "bind", "/a/b": "bind", "/a/c/d": "bind", "/t": "tmpfs", "/t/b": "bind"}
    assert list(place(written, image, below).values()) == ["/a", "/a/b", "/tmp/d", "/t", "/t/b"]


def test_a_mount_over_a_link_is_seen_by_what_lies_below_its_place() -> None:
    image = {"/var/run": "/run", "/run/x": "/etc"}
    written = {"/var/run": "tmpfs", "/run/x/y": "bind"}
    assert list(place(written, image).values()) == ["/run", "/run/x/y"]


@pytest.mark.parametrize(
    ("target", "to"),
    [
        ("/x", "/dev"),
        ("/x", "dev"),
        ("/x", "/dev/shm/.."),
        ("/x/null", "/dev"),
        ("/x", "/dev/pts"),
        ("/x", "/dev/mqueue"),
        ("/x", "/"),
        ("/x", ".."),
        ("/x", "/proc"),
        ("/x/self", "/proc"),
        ("/x", "/sys"),
        ("/x", "/sys/fs/cgroup"),
        ("/x/dev", "/"),
    ],
)
def test_no_link_leads_to_the_containers_own(target: str, to: str) -> None:
    for above in ("", "/b"):
        written = {"/b": "bind", above + target: "bind"}
        links = {f"{above}/x": to if to.startswith("/") else f"..{above and '/..'}/{to}"}
        with pytest.raises(DriverError, match="is the container's own") as caught:
            place(written, links, links)
        assert f"{above}/x -> " in str(caught.value)


@pytest.mark.parametrize("path", ["/dev", "/proc", "/sys", "/local"])
def test_some_directories_of_an_image_are_no_links(path: str) -> None:
    with pytest.raises(DriverError, match=f"the image's '{path}' is a link to '/elsewhere'"):
        place({"/local": "bind"}, {path: "/elsewhere"}, plain=("/local",))


def test_links_without_end_are_an_error() -> None:
    with pytest.raises(DriverError, match="too many links"):
        place({"/x": "bind"}, {"/x": "/y", "/y": "/x"})


NAMES = st.sampled_from(["a", "b", "c", "dev", "proc"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda names: "/" + "/".join(names))
TEXTS = st.lists(st.sampled_from(["a", "b", "dev", "..", "."]), min_size=1, max_size=4)


@given(
    image=st.dictionaries(PATHS, TEXTS.map("/".join)),
    below=st.dictionaries(PATHS, TEXTS.map(lambda names: "/" + "/".join(names))),
    written=st.lists(PATHS, max_size=4, unique=True),
)
def test_whatever_the_links_no_mount_is_at_a_reserved_place(
    image: dict[str, str], below: dict[str, str], written: list[str]
) -> None:
    asked = {target: "bind" for target in written if not is_reserved(target, Reach.JOB)}
    try:
        placed = place(asked, image, below)
    except DriverError:
        return
    for target in placed.values():
        assert target == posixpath.normpath(target)
        assert not is_reserved(target, Reach.JOB)


def test_the_mounts_below_a_bind_are_told_with_their_paths() -> None:
    points = [
        MountPoint(target=target, type=kind)
        for target, kind in (("/a/b/c", "bind"), ("/t/x", "bind"), ("/t", "tmpfs"), ("/a", "bind"))
    ]
    found = [(above.target, point.target, path) for above, point, path in targets.nested(points)]
    assert found == [("/a", "/a/b/c", "b/c")]


def test_names_of_a_directory_are_told_without_following_any(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "f").touch()
    (tmp_path / "l").symlink_to("/etc")
    root = os.open(tmp_path, os.O_PATH)
    try:
        found = {name: root_links.entry(root, name) for name in ("d", "f", "l", "n", "f/x")}
        with pytest.raises(OSError, match="symbolic links"):
            root_links.entry(root, "l/passwd")
    finally:
        os.close(root)
    assert found == {
        "d": DIRECTORY,
        "f": Entry(Kind.OTHER),
        "l": link("/etc"),
        "n": ABSENT,
        "f/x": ABSENT,
    }


def test_a_copy_of_the_image_has_the_links_of_the_image() -> None:
    copy = MountPoint(target="/a", type="tmpfs", options=("tmpcopyup",))
    inner = MountPoint(target="/a/x")

    def inspect(path: str) -> Entry:
        return link("/dev/shm/..") if path == "/a/x" else ABSENT

    with pytest.raises(DriverError, match="leads to '/dev' by the link '/a/x"):
        targets.resolve([copy, inner], inspect, lambda _point, _path: DIRECTORY)
    plain = dataclasses.replace(copy, options=())
    placed = targets.resolve([plain, inner], inspect, lambda _point, _path: DIRECTORY)
    assert [point.target for point in placed] == ["/a", "/a/x"]


@pytest.mark.parametrize("target", ["/a", "/a/b", "/a/b/c"])
def test_nothing_is_copied_from_a_bind(target: str) -> None:
    copy = MountPoint(target=target, type="tmpfs", options=("size=1m", "tmpcopyup"))
    with pytest.raises(DriverError, match="tmpcopyup of"):
        targets.check_copies([copy, MountPoint(target="/a")])
    targets.check_copies([copy, MountPoint(target="/aa"), MountPoint(target=f"{target}/below")])


def test_a_target_has_a_bounded_number_of_names_with_those_of_its_links() -> None:
    deep = "/d" * 100
    assert place({deep: "bind"}) == {deep: deep}
    for written, image in (("/d" * 129, {}), ("/x", {"/x": f"{deep}/y", f"{deep}/y": deep})):
        with pytest.raises(DriverError, match="more than 128 names"):
            place({written: "bind"}, image)
