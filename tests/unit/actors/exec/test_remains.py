"""A command that is abandoned amid the start of processes leaves none of these processes."""

from __future__ import annotations

import os
import subprocess
import uuid
from pathlib import Path

from actors.exec import remains
from tests.support.needs import need_root_here
from tests.support.nomad.leftovers import pids_with
from tests.support.waiting import wait_until

STARTS = (
    "while [ $((i += 1)) -le 400 ]; do sleep 300.{0} & sh -c 'sleep 301.{0}; true' & done; wait"
)


def test_a_process_that_starts_meanwhile_is_found_too() -> None:
    mark = str(uuid.uuid4().int % 10**9)
    for own_session in (True, False):
        leader = subprocess.Popen(["sh", "-c", STARTS.format(mark)], start_new_session=own_session)
        wait_until(lambda: len(pids_with(mark)) > 20, 20)
        remains.kill(remains.open_started(leader.pid, os.getpid()))
        leader.wait(20)
        wait_until(lambda: not pids_with(mark), 10, lambda: f"{pids_with(mark)} are left")


def test_a_process_of_another_cgroup_or_the_task_itself_is_let_be() -> None:
    with subprocess.Popen(["sleep", "300"]) as other:
        assert remains.open_started(other.pid, other.pid) == []
        assert remains.open_started(0, other.pid) == []
        assert other.poll() is None
        other.kill()


def test_a_process_outside_of_the_task_with_the_number_of_a_command_is_let_be() -> None:
    need_root_here()
    with subprocess.Popen(["unshare", "--mount", "sleep", "300"]) as other:
        own = Path("/proc/self/ns/mnt").readlink()
        wait_until(lambda: Path(f"/proc/{other.pid}/ns/mnt").readlink() != own, 10)
        assert remains.open_started(other.pid, os.getpid()) == []
        assert " T " not in Path(f"/proc/{other.pid}/stat").read_text()
        other.kill()
