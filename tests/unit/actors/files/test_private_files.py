"""Files of the driver in a task's directory, where others may have put something first."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.files import private_files
from proto.errors import DriverError


@pytest.fixture
def alloc(tmp_path: Path) -> Path:
    """Creates an allocation with a single task."""
    (tmp_path / "a" / "web").mkdir(parents=True)
    return tmp_path / "a"


def write(alloc: Path, **texts: str) -> None:
    private_files.write(str(alloc), "web", texts)


def test_files_are_written_for_every_reader_and_replaced(alloc: Path) -> None:
    write(alloc, hosts="one")
    first = (alloc / "web/.etc/hosts").stat()
    write(alloc, hosts="two", hostname="h")
    assert (alloc / "web/.etc/hosts").read_text() == "two"
    assert first.st_mode & 0o777 == 0o644
    assert first.st_ino != (alloc / "web/.etc/hosts").stat().st_ino
    assert sorted(path.name for path in (alloc / "web/.etc").iterdir()) == ["hostname", "hosts"]


def test_a_link_in_the_place_of_a_file_is_replaced_not_followed(alloc: Path) -> None:
    """Covers S11: the Go driver wrote /local/etc_hosts as root at the next start."""
    precious = alloc / "precious"
    precious.write_text("as it was")
    (alloc / "web/.etc").mkdir(mode=0o755)
    (alloc / "web/.etc/hosts").symlink_to(precious)
    (alloc / "web/.etc/hostname").hardlink_to(precious)
    write(alloc, hosts="new", hostname="new")
    assert precious.read_text() == "as it was"
    assert not (alloc / "web/.etc/hosts").is_symlink()


@pytest.mark.parametrize("what", ["the directory", "the task's directory"])
def test_a_link_in_the_place_of_a_directory_is_refused(
    alloc: Path, tmp_path: Path, what: str
) -> None:
    """Covers S11, with a link in the place of a directory."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if what == "the directory":
        (alloc / "web/.etc").symlink_to(elsewhere)
    else:
        (alloc / "web").rmdir()
        (alloc / "web").symlink_to(elsewhere)
    with pytest.raises(DriverError, match=r"cannot write the task's hosts"):
        write(alloc, hosts="new")
    private_files.remove(str(alloc), "web")
    assert list(elsewhere.iterdir()) == []


def test_a_directory_that_others_may_write_to_is_refused(alloc: Path) -> None:
    (alloc / "web/.etc").mkdir()
    (alloc / "web/.etc").chmod(0o777)
    with pytest.raises(DriverError, match="another user can write to the directory"):
        write(alloc, hosts="new")


def test_what_was_written_is_removed_and_gone_is_done(alloc: Path) -> None:
    write(alloc, hosts="new")
    private_files.remove(str(alloc), "web")
    assert list((alloc / "web").iterdir()) == []
    private_files.remove(str(alloc), "web")


def test_without_texts_nothing_is_made(alloc: Path) -> None:
    private_files.write("/no/such", "web", {})
    write(alloc)
    assert list((alloc / "web").iterdir()) == []
