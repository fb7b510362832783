"""Findings of the garbage collection at a test's end."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

from tests.support import garbage
from tests.support.plugin.plugin_dir import ROOT


def test_an_unclosed_socket_in_a_cycle_is_found_once() -> None:
    garbage.collect(everything=False)
    cycle: list[object] = [socket.socket()]
    cycle.append(cycle)
    del cycle
    (found,) = garbage.collect(everything=False)
    assert "unclosed <socket" in found
    assert garbage.collect(everything=False) == []


def test_an_object_that_was_alive_at_an_earlier_collection_is_found_by_a_whole_one() -> None:
    cycle: list[object] = [socket.socket()]
    cycle.append(cycle)
    garbage.collect(everything=False)
    del cycle
    assert garbage.collect(everything=False) == []
    (found,) = garbage.collect(everything=True)
    assert "unclosed <socket" in found


LEAVING = """
import asyncio, gc, socket

def test_a_socket():
    cycle = [socket.socket()]
    cycle.append(cycle)

def test_nothing():
    pass

def test_a_task():
    async def waits():
        await asyncio.get_running_loop().create_future()

    async def story():
        asyncio.get_running_loop().create_task(waits())
        await asyncio.sleep(0)
        gc.collect()

    asyncio.run(story())

def test_nothing_again():
    pass
"""


def test_each_defect_is_an_error_of_its_own_test(tmp_path: Path) -> None:
    place = tmp_path / "test_leaving.py"
    place.write_text(LEAVING)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "tests.support.garbage"]
    ended = subprocess.run(
        [*command, "-c", "/dev/null", "-p", "no:cacheprovider", str(place)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    errors = re.findall(r"^ERROR .*::(\w+)", ended.stdout, re.MULTILINE)
    assert errors == ["test_a_socket", "test_a_task"], ended.stdout
    assert "4 passed, 2 errors" in ended.stdout
    assert "unclosed <socket" in ended.stdout
    assert "Task was destroyed but it is pending!" in ended.stdout
