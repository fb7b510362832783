"""stdout and stderr of a run, as files on a full disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from plugin.cli.output_stream import OutputStream
from tests.support.kernel.scarce import SmallDisk

WAITS = "error: {}: No space left on device: output waits for space"


class Stream:
    """A file with the name of an output."""

    def __init__(self, path: Path, name: str) -> None:
        self._file = path.open("ab")
        self.name = f"<{name}>"
        self.fileno = self._file.fileno
        self.close = self._file.close


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    made = SmallDisk(tmp_path)
    yield made
    made.close()


def outlets(out: Path, err: Path) -> tuple[OutputStream, OutputStream, list[Stream]]:
    streams = [Stream(out, "stdout"), Stream(err, "stderr")]
    errors = OutputStream(_text(streams[1]))
    return OutputStream(_text(streams[0]), errors), errors, streams


def _text(stream: Stream) -> TextIO:
    return stream  # type: ignore[return-value]


def test_both_on_a_full_disk_say_so_once_each_and_lose_nothing(disk: SmallDisk) -> None:
    paths = disk.directory / "out", disk.directory / "err"
    out, err, streams = outlets(*paths)
    disk.fill()
    out.write_line("one")
    out.write_line("two")
    assert not out.flush()
    assert not err.flush()
    disk.free()
    assert out.flush()
    assert paths[0].read_text() == "one\ntwo\n"
    assert [paths[1].read_text().count(WAITS.format(one)) for one in ("stdout", "stderr")] == [1, 1]
    assert out.end()
    assert err.end()
    for stream in streams:
        stream.close()


def test_what_comes_without_end_is_counted_and_not_kept(tmp_path: Path) -> None:
    err = tmp_path / "err"
    out, _, streams = outlets(Path("/dev/full"), err)
    for _ in range(20):
        out.write(bytes(100_000))
    assert not out.end()
    said = err.read_text()
    assert said.count(WAITS.format("stdout")) == 1
    assert "error: stdout: 2000000 bytes were lost, no space left" in said
    for stream in streams:
        stream.close()
