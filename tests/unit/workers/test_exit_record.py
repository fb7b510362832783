"""Exit records on disk."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest

from proto.errors import Code, DriverError
from workers import exit_record
from workers.protocol import ExitRecord

RECORD = ExitRecord(code=3, at_ns=1_700_000_000_000_000_001, oom_kills=2)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    """Yields a descriptor of the test's directory."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_an_exit_is_read_back_as_it_was_written(directory: int, tmp_path: Path) -> None:
    exit_record.reserve_exit(directory).write(RECORD.to_wire())
    assert exit_record.read_exit(str(tmp_path)) == RECORD


def test_no_record_is_none(tmp_path: Path) -> None:
    assert exit_record.read_exit(str(tmp_path)) is None


def test_a_record_replaces_the_one_before_and_leaves_nothing_beside_it(
    directory: int, tmp_path: Path
) -> None:
    exit_record.reserve_exit(directory).write(ExitRecord(code=1, at_ns=1).to_wire())
    (tmp_path / "exit").rename(tmp_path / "exit.new")  # left by a worker killed during a write
    exit_record.reserve_exit(directory).write(RECORD.to_wire())
    assert exit_record.read_exit(str(tmp_path)) == RECORD
    assert [path.name for path in tmp_path.iterdir()] == ["exit"]
    assert (tmp_path / "exit").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        msgpack.packb([1, 2]),
        msgpack.packb({"code": 1, "at_ns": 1}),
        msgpack.packb({"v": 0, "code": 1, "at_ns": 1}),
        msgpack.packb({"v": 1, "at_ns": 1}),
        msgpack.packb({"v": 1, "code": "one", "at_ns": 1}),
        msgpack.packb({"v": 1, "code": True, "at_ns": 1}),
    ],
)
def test_a_damaged_record_is_an_error_and_no_exit(body: bytes, tmp_path: Path) -> None:
    (tmp_path / "exit").write_bytes(body)
    with pytest.raises(DriverError) as caught:
        exit_record.read_exit(str(tmp_path))
    assert caught.value.code is Code.CORRUPT


def test_a_record_of_a_newer_release_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "exit").write_bytes(msgpack.packb({"v": 2, "code": 0, "at_ns": 1}))
    with pytest.raises(DriverError, match="newer release") as caught:
        exit_record.read_exit(str(tmp_path))
    assert caught.value.code is Code.UNSUPPORTED


def test_fields_of_a_newer_release_are_ignored(tmp_path: Path) -> None:
    record = {"v": 1, **RECORD.to_wire(), "mood": "good"}
    (tmp_path / "exit").write_bytes(msgpack.packb(record))
    assert exit_record.read_exit(str(tmp_path)) == RECORD


def test_a_link_in_place_of_a_record_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "exit").symlink_to("/etc/passwd")
    with pytest.raises(DriverError) as caught:
        exit_record.read_exit(str(tmp_path))
    assert caught.value.code is Code.CORRUPT


def test_a_record_that_cannot_be_written_says_what_to_do(directory: int, tmp_path: Path) -> None:
    reserved = exit_record.reserve_exit(directory)
    (tmp_path / "exit.new").unlink()
    tmp_path.rmdir()
    with pytest.raises(DriverError, match="state_dir") as caught:
        reserved.write(RECORD.to_wire())
    assert caught.value.code is Code.EXHAUSTED
    tmp_path.mkdir()


def test_a_record_whose_reserved_file_was_removed_is_written(
    directory: int, tmp_path: Path
) -> None:
    reserved = exit_record.reserve_exit(directory)
    (tmp_path / "exit.new").unlink()
    reserved.write(RECORD.to_wire())
    assert exit_record.read_exit(str(tmp_path)) == RECORD


def test_a_record_without_a_descriptor_is_written_as_soon_as_there_is_one(
    directory: int, tmp_path: Path
) -> None:
    reserved = exit_record.reserve_exit(directory)
    (tmp_path / "exit.new").unlink()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        for _ in range(2):
            with pytest.raises(DriverError, match="cannot write the record"):
                reserved.write(RECORD.to_wire())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    reserved.write(RECORD.to_wire())
    assert exit_record.read_exit(str(tmp_path)) == RECORD


def test_a_record_after_a_partial_write_is_whole(directory: int, tmp_path: Path) -> None:
    reserved = exit_record.reserve_exit(directory)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, limit[1]))
    try:
        with pytest.raises(DriverError, match="cannot write the record"):
            reserved.write(RECORD.to_wire())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    reserved.write(RECORD.to_wire())
    assert exit_record.read_exit(str(tmp_path)) == RECORD
