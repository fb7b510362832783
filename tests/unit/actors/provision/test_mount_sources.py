"""Sources of mounts: their paths, and no way out of the allocation through a link."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.lifecycle import directory
from actors.model.nomad import TaskConfig
from actors.model.ownership import PLUGIN, OwnerLabels
from actors.model.settings import DriverSettings
from actors.orphans import sweeper
from actors.orphans.peers import Presence
from actors.provision import mount_sources
from actors.provision.mount_sources import Source
from proto.errors import DriverError
from tests.support.kernel import mounted
from tests.support.plugin.services import services

TASK = TaskConfig(id="a/web/1", name="web", alloc_id="a", alloc_dir="/allocs/a")
PARTS = st.lists(
    st.sampled_from(["local", "localX", "secrets", "private", "alloc", "web", "db", "x", "..", "."])
)


@pytest.mark.parametrize(
    ("source", "below"),
    [
        ("local", "web/local"),
        ("local/x", "web/local/x"),
        ("./local//x/", "web/local/x"),
        ("local/x/../y", "web/local/y"),
        ("secrets/key.pem", "web/secrets/key.pem"),
        ("alloc/data", "alloc/data"),
        ("../alloc/data", "alloc/data"),
        ("../web/local", "web/local"),
        ("/allocs/a/web/local/x", "web/local/x"),
        ("/allocs//a/./alloc", "alloc"),
    ],
)
def test_a_relative_source_is_the_tasks_or_the_groups(source: str, below: str) -> None:
    assert mount_sources.locate(source, TASK) == Source(path=below, root="/allocs/a")


@pytest.mark.parametrize(
    "source",
    [
        "localX",
        "localX/y",
        "local/../../../etc",
        "local/../private/token",
        "private",
        "..",
        ".",
        "data",
        "../db/secrets",
        "alloc/../db/local",
        "../allocX",
        "/allocs/a",
        "/allocs/a/db/secrets",
        "/allocs/a/web/private",
        "a\0b",
        "x" * 5000,
    ],
)
def test_a_source_outside_of_what_the_task_may_see_is_refused(source: str) -> None:
    with pytest.raises(DriverError, match=r"mounts: source"):
        mount_sources.locate(source, TASK)


@pytest.mark.parametrize(
    ("source", "clean"),
    [("/srv", "/srv"), ("//srv/x/../y", "/srv/y"), ("/allocs/ab", "/allocs/ab"), ("/", "/")],
)
def test_other_absolute_paths_are_the_hosts(source: str, clean: str) -> None:
    assert mount_sources.locate(source, TASK) == Source(path=clean)


@given(parts=PARTS)
def test_no_relative_source_leaves_the_tasks_directories(parts: list[str]) -> None:
    try:
        source = mount_sources.locate("/".join(parts) or ".", TASK)
    except DriverError:
        return
    assert source.root == "/allocs/a"
    names = source.path.split("/")
    assert ".." not in names
    assert names[0] == "alloc" or (names[0] == "web" and names[1] in {"local", "secrets", "tmp"})


def test_a_relative_source_without_an_allocation_is_refused() -> None:
    with pytest.raises(DriverError, match="the task has no allocation directory"):
        mount_sources.locate("local/x", TaskConfig(id="a/web/1", name="web"))


def test_the_log_directory_is_known_in_every_form() -> None:
    def of(text: str) -> Source:
        return mount_sources.locate(text, TASK)

    assert mount_sources.holds_logs(of("../alloc"))
    assert mount_sources.holds_logs(of("alloc/data/.."))
    assert not mount_sources.holds_logs(of("alloc/data"))
    assert mount_sources.is_in_logs(of("alloc/logs"))
    assert mount_sources.is_in_logs(of("/allocs/a/alloc/logs/web.stdout.0"))
    assert not mount_sources.is_in_logs(of("alloc/logs2"))
    assert not mount_sources.is_in_logs(of("/srv/alloc/logs"))


@pytest.fixture
def alloc(tmp_path: Path) -> Path:
    """Creates an allocation with a task `web`, and links as a task may create."""
    base = tmp_path / "a"
    local = base / "web/local"
    local.mkdir(parents=True)
    (base / "web/private").mkdir()
    (local / "dir").mkdir()
    (local / "file").write_text("content")
    # A decoy, never / itself: faulty code would put the machine's files in a pin.
    (tmp_path / "outside" / "etc").mkdir(parents=True)
    (local / "root").symlink_to(tmp_path / "outside")
    (local / "up").symlink_to("../private")
    (local / "beside").symlink_to("dir")
    os.mkfifo(local / "fifo")
    return base


@pytest.mark.parametrize("name", ["dir", "file", "fifo", "."])
def test_what_is_there_is_fine(alloc: Path, name: str) -> None:
    mount_sources.check(Source(path=f"web/local/{name}", root=str(alloc)))


@pytest.mark.parametrize("name", ["root", "root/etc", "up", "beside", "dir/../root"])
def test_no_link_of_a_task_is_followed(alloc: Path, name: str) -> None:
    with pytest.raises(DriverError, match="goes through a link"):
        mount_sources.check(Source(path=f"web/local/{name}", root=str(alloc)))


def test_a_path_that_climbs_is_stopped_by_the_kernel_too(alloc: Path) -> None:
    with pytest.raises(DriverError, match="goes through a link"):
        mount_sources.check(Source(path="../../etc", root=str(alloc)))


def test_what_is_missing_is_named_with_its_option(alloc: Path) -> None:
    with pytest.raises(DriverError, match=r"mounts: source .*/web/local/no.* does not exist"):
        mount_sources.check(Source(path="web/local/no", root=str(alloc)))
    with pytest.raises(DriverError, match=r"volume_mount: source '/no/such' does not exist"):
        mount_sources.check(Source(path="/no/such", what="volume_mount"))
    with pytest.raises(DriverError, match="cannot be used"):
        mount_sources.check(Source(path="web/local/file/x", root=str(alloc)))


root_only = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@root_only
def test_a_pin_keeps_what_was_found_and_goes_without_a_trace(alloc: Path, tmp_path: Path) -> None:
    pins = tmp_path / "pins" / "c"
    sources = [Source(path=f"web/local/{name}", root=str(alloc)) for name in ("dir", "file")]
    local = alloc / "web/local"
    mount_sources.pin(pins, sources)
    try:
        # A task can now put a link in the directory's place.
        (local / "dir").rename(local / "old")
        (local / "dir").symlink_to(tmp_path / "outside")
        (local / "old" / "mine").touch()
        assert [p.name for p in Path(mount_sources.pin_path(pins, 0)).iterdir()] == ["mine"]
        assert Path(mount_sources.pin_path(pins, 1)).read_text() == "content"
    finally:
        mount_sources.release(pins)
    assert not pins.exists()
    assert str(pins) not in Path("/proc/mounts").read_text()
    assert (local / "old" / "mine").exists()


@root_only
def test_a_link_that_came_after_the_first_look_is_not_pinned(alloc: Path, tmp_path: Path) -> None:
    pins = tmp_path / "pins" / "c"
    local = alloc / "web/local"
    source = Source(path="web/local/dir", root=str(alloc))
    mount_sources.check(source)
    (local / "dir").rmdir()
    (local / "dir").symlink_to(tmp_path / "outside")
    try:
        with pytest.raises(DriverError, match="goes through a link"):
            mount_sources.pin(pins, [Source(path="web/local/file", root=str(alloc)), source])
        left = pins.exists()
    finally:
        mount_sources.release(pins)
    assert not left
    assert str(pins) not in Path("/proc/mounts").read_text()


@root_only
def test_what_a_killed_plugin_held_is_released_and_no_file_is_lost(
    alloc: Path, tmp_path: Path
) -> None:
    node = services(DriverSettings(state_dir=str(tmp_path)))
    other = Presence(tmp_path, PLUGIN)
    source = Source(path="web/local", root=str(alloc))
    for name, maker in (("dead", "plugin-1"), ("alive", other.name), ("unknown", "")):
        if maker:
            owner = OwnerLabels(owner="n", maker=maker, state_dir=str(tmp_path))
            directory.create_directory(node, tmp_path / "tasks" / name, owner)
        mount_sources.pin(tmp_path / "mounts" / name, [source])
    try:
        sweeper.release_mounts(node)
        assert [entry.name for entry in (tmp_path / "mounts").iterdir()] == ["alive"]
    finally:
        other.close()
    sweeper.release_mounts(node)
    assert list((tmp_path / "mounts").iterdir()) == []
    assert str(tmp_path / "mounts") not in Path("/proc/mounts").read_text()
    assert (alloc / "web/local/file").read_text() == "content"


@root_only
def test_what_a_test_leaves_mounted_is_detached_before_its_directory_goes(
    alloc: Path, tmp_path: Path
) -> None:
    pins = tmp_path / "pins" / "c"
    mount_sources.pin(pins, [Source(path="web/local", root=str(alloc))])
    assert mounted.detach_below(tmp_path) == [str(pins), mount_sources.pin_path(pins, 0)]
    assert mounted.detach_below(tmp_path) == []
    assert (alloc / "web/local/file").exists()


def test_a_path_with_a_nul_byte_is_none(alloc: Path) -> None:
    for source in (Source(path="/etc\0/x"), Source(path="web\0/local", root=str(alloc))):
        with pytest.raises(DriverError, match="is not a valid path"):
            mount_sources.check(source)
