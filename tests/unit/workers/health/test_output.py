"""Tests of the output of health checks."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from workers.health.output import Output


def test_a_check_begins_though_a_process_of_an_earlier_check_writes_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    loop = SimpleNamespace(watch=lambda *_: None, forget=lambda _: None)
    kept = Output(cast("Any", loop), directory)
    reads: list[int] = []

    def read(_descriptor: int, size: int) -> bytes:
        reads.append(size)
        assert sum(reads) <= 2 << 20, "the worker reads for ever"
        return b"x" * size

    monkeypatch.setattr("workers.health.output.os.read", read)
    kept.begin()
    monkeypatch.undo()
    assert sum(reads) == 1 << 20  # the largest FIFO
    assert kept.end() == b""
    kept.close()
    os.close(directory)
