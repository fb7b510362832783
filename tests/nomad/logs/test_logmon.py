"""Tests of Nomad's own log reader, killed under a task that keeps writing."""

from __future__ import annotations

import os
import signal
import uuid
from pathlib import Path

import pytest

from tests.support.nomad.api import DEAF, NomadApi, make_job
from tests.support.nomad.nomad_agent import NomadAgent
from tests.support.plugin.driver import children
from tests.support.waiting import wait_until
from tests.support.workers.peers import has_ended

pytestmark = [pytest.mark.nomad, pytest.mark.containerd]

FIRST, LAST = 1000, 100_000
SCRIPT = (
    f"seq 1 {FIRST}; until test -e /alloc/data/go; do sleep 0.05; done;"
    f"seq {FIRST + 1} {LAST}; touch /alloc/data/done; exec sleep 600"
)


def test_no_line_is_lost_when_logmon_was_killed_and_the_agent_is_started_again(
    nomad: NomadApi, nomad_agent: NomadAgent, busybox_image: str
) -> None:
    command = {"image": busybox_image, "command": "sh", "args": ["-c", SCRIPT]}
    alloc = nomad.run(make_job(f"job-{uuid.uuid4().hex[:8]}", command, **DEAF))
    nomad.wait_log(alloc, f"\n{FIRST}\n")
    # The worker holds nothing: the task waits, and the written text is in Nomad's file.
    os.kill(logmon(nomad_agent), signal.SIGKILL)
    shared = nomad_agent.alloc_root / alloc / "alloc" / "data"
    (shared / "go").touch()
    wait_until((shared / "done").exists, 30, "the task waits for its reader")
    stalled = "Log reader stalled: nobody reads stdout; 571.3 KiB wait"
    wait_until(lambda: stalled in nomad.story(alloc), 30, lambda: nomad.story(alloc))
    nomad_agent.kill()
    nomad_agent.start()
    wait_until(lambda: nomad.logs(alloc).endswith(f"\n{LAST}\n"), 30)
    assert nomad.logs(alloc) == "".join(f"{number}\n" for number in range(1, LAST + 1))
    back = "stdout is read again; no bytes were lost"
    wait_until(lambda: back in nomad.story(alloc), 30, lambda: nomad.story(alloc))


def logmon(agent: NomadAgent) -> int:
    """Returns the only running log collector."""
    assert agent.process is not None
    (pid,) = [
        pid
        for pid in map(int, children(agent.process.pid))
        if not has_ended(pid) and b"\0logmon" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return pid
