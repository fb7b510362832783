"""Tests of log files: names, rotation, restarts, and files that a task has put in the way."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from proto.errors import Code, DriverError
from workers.logs import pipe
from workers.logs.log_files import LogFiles

KIB = 1024
MOST = 64 * KIB


class Log:
    """A FIFO and the files behind it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.source, self.writer = os.pipe()
        os.set_blocking(self.source, False)
        pipe.resize(self.writer, 1 << 20)
        self.files = self.opened()

    def opened(self, most_files: int = 100, most_bytes: int = MOST) -> LogFiles:
        """Opens the files as one more worker does."""
        return LogFiles(str(self.directory / "web.stdout"), most_files, most_bytes)

    def write(self, data: bytes) -> None:
        """Writes to the FIFO and moves all to the files."""
        while data:
            data = data[os.write(self.writer, data[: 512 * KIB]) :]
            self.take()

    def take(self) -> None:
        """Moves all bytes to the files."""
        while pipe.unread(self.source):
            assert self.files.take(self.source) > 0

    def content(self) -> list[bytes]:
        """Returns the contents of the files by number."""
        return [path.read_bytes() for path in self.paths()]

    def paths(self) -> list[Path]:
        """Lists the files by number."""
        return sorted(
            self.directory.glob("web.stdout.*"), key=lambda path: int(path.suffix.lstrip("."))
        )

    def close(self) -> None:
        """Closes all descriptors."""
        self.files.close()
        for descriptor in (self.source, self.writer):
            if descriptor >= 0:
                os.close(descriptor)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """Yields a log below `alloc/logs`."""
    (tmp_path / "alloc" / "logs").mkdir(parents=True)
    made = Log(tmp_path / "alloc" / "logs")
    yield made
    made.close()


def lines(count: int, width: int = 99) -> bytes:
    return b"".join(b"%0*d\n" % (width, number) for number in range(count))


def test_the_first_file_exists_before_the_first_line_with_the_mode_of_logmon(log: Log) -> None:
    (only,) = log.paths()
    assert only.name == "web.stdout.0"
    assert stat.S_IMODE(only.stat().st_mode) == 0o644
    log.write(b"hello\n")
    assert only.read_bytes() == b"hello\n"


def test_no_line_is_split_and_no_byte_is_lost_or_doubled(log: Log) -> None:
    text = lines(10_000)
    log.write(text)
    files = log.content()
    assert b"".join(files) == text
    assert len(files) > len(text) // MOST
    assert all(content.endswith(b"\n") and len(content) <= MOST for content in files)


@pytest.mark.parametrize("width", [1, 8 * KIB - 2, 7 * KIB])
def test_a_line_up_to_an_eighth_of_a_file_is_never_split(log: Log, width: int) -> None:
    text = lines(400 * KIB // (width + 1), width)
    log.write(text)
    files = log.content()
    assert b"".join(files) == text
    assert all(content.endswith(b"\n") and len(content) <= MOST for content in files)


def test_a_longer_line_fills_the_file(log: Log) -> None:
    text = b"x" * (3 * MOST + 1) + b"\n"
    log.write(text)
    assert [len(content) for content in log.content()] == [MOST, MOST, MOST, 2]
    assert b"".join(log.content()) == text


def test_the_oldest_files_are_removed(log: Log) -> None:
    log.files.close()
    log.files = log.opened(most_files=3)
    text = lines(5_000)
    log.write(text)
    assert len(log.paths()) == 3
    assert text.endswith(b"".join(log.content()))


def test_a_new_worker_goes_on_with_the_last_file(log: Log) -> None:
    log.write(b"half of ")
    log.files.close()
    log.files = log.opened()
    log.write(b"a line\n")
    assert log.content() == [b"half of a line\n"]


def test_a_new_worker_goes_on_in_the_middle_of_the_last_line_of_a_file(log: Log) -> None:
    text = lines(2_000, 999)
    for position in range(0, len(text), 777):
        log.write(text[position : position + 777])
        log.files.close()
        log.files = log.opened()
    assert b"".join(log.content()) == text
    assert all(content.endswith(b"\n") and len(content) <= MOST for content in log.content())


def test_a_truncated_file_goes_on_at_its_new_end_and_a_removed_one_is_replaced(log: Log) -> None:
    log.write(b"before\n")
    os.truncate(log.paths()[0], 0)
    log.write(b"after\n")
    assert log.content() == [b"after\n"]
    log.paths()[0].unlink()
    log.write(b"more\n")
    assert [path.name for path in log.paths()] == ["web.stdout.1"]
    assert log.content() == [b"more\n"]


def test_other_files_of_the_directory_are_left_alone(log: Log) -> None:
    others = ["web.stdout.log", "web.stdout.", "web.stdout.1x", "web.stderr.7", "web2.stdout.3"]
    others += ["web.stdout.²", "web.stdout." + "9" * 30]
    for name in others:
        (log.directory / name).write_text("theirs")
    log.files.close()
    log.files = log.opened(most_files=1)
    log.write(lines(2_000))
    assert all((log.directory / name).read_text() == "theirs" for name in others)


def test_what_a_task_puts_in_the_way_is_not_written(log: Log, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    log.files.close()
    (log.directory / "web.stdout.0").unlink()
    for number in range(2):
        plant = log.directory / f"web.stdout.{number}"
        plant.hardlink_to(victim) if number else plant.symlink_to(victim)
        log.files = log.opened()
        log.write(b"ours\n")
        assert (log.directory / f"web.stdout.{number + 1}").read_bytes() == b"ours\n"
        log.files.close()
        (log.directory / f"web.stdout.{number + 1}").unlink()
    os.mkfifo(log.directory / "web.stdout.5")
    (log.directory / "web.stdout.6").mkdir()
    log.files = log.opened(most_files=2)
    for number in (8, 9):
        (log.directory / f"web.stdout.{number}").symlink_to(victim)
    log.write(lines(2_000))
    assert victim.read_text() == "theirs"
    written = [path for path in log.paths() if path.is_file() and not path.is_symlink()]
    assert [path.name for path in written] == ["web.stdout.11", "web.stdout.12"]


@pytest.mark.parametrize("place", ["alloc/logs", "alloc"])
def test_no_link_in_place_of_the_directories_is_followed(tmp_path: Path, place: str) -> None:
    (tmp_path / "elsewhere" / "logs").mkdir(parents=True)
    link = tmp_path / place
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(tmp_path / "elsewhere" / ("logs" if place != "alloc" else ""))
    with pytest.raises(DriverError, match="cannot open the directory of the task's logs") as caught:
        LogFiles(str(tmp_path / "alloc" / "logs" / "web.stdout"), 10, MOST)
    assert caught.value.code is Code.PRECONDITION
    assert not list((tmp_path / "elsewhere").glob("**/web*"))


def test_the_end_of_the_fifo_is_told_from_an_empty_one(log: Log) -> None:
    with pytest.raises(BlockingIOError):
        log.files.take(log.source)
    os.close(log.writer)
    log.writer = -1
    assert log.files.take(log.source) == 0
