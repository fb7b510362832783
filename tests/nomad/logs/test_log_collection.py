"""Tests of an agent whose driver collects the logs: `alloc logs -f`, restarts, and a switch."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nomad.conftest import started_agent
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.nomad.api import NomadApi, make_job
from tests.support.nomad.nomad_agent import NomadAgent
from tests.support.plugin.driver import children
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.nomad, pytest.mark.containerd]

NOMAD, DRIVER = 'log_collection = "nomad"', 'log_collection = "driver"'
FILES = 'log_files { max_files = 100 max_file_size = "64K" }'
LAST = 60_000
TEXT = "".join(f"{number}\n" for number in range(1, LAST + 1))  # 0.35 MB: six files
SLOW = (
    "i=0; while test $i -lt 60; do seq $((i * 1000 + 1)) $((i * 1000 + 1000)); sleep 0.05;"
    " i=$((i + 1)); done; touch /alloc/data/done; exec sleep 600"
)
COUNTER = "i=0; while true; do i=$((i + 1)); echo line $i; sleep 0.01; done"


@pytest.fixture
def agent(containerd: ContainerdDaemon, newer_agent: Path) -> Iterator[NomadAgent]:
    """Starts an agent whose driver collects the logs."""
    with started_agent(newer_agent, containerd, f"{DRIVER}\n{FILES}") as running:
        yield running


def switch(agent: NomadAgent, before: str, after: str) -> None:
    """Restarts the agent with another option, while tasks run."""
    agent.kill()
    file = agent.base / "agent.hcl"
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))
    agent.start()


def run(nomad: NomadApi, image: str, script: str) -> str:
    """Starts a job and returns the allocation."""
    command = {"image": image, "command": "sh", "args": ["-c", script]}
    return nomad.run(make_job(f"job-{uuid.uuid4().hex[:8]}", command, KillTimeout=10**8))


def logmons(agent: NomadAgent) -> list[int]:
    """Lists the agent's log collectors."""
    assert agent.process is not None
    return [
        pid
        for pid in map(int, children(agent.process.pid))
        if b"\0logmon" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def test_logs_a_follower_and_a_killed_agent_have_each_byte_without_a_logmon(
    agent: NomadAgent, busybox_image: str, tmp_path: Path
) -> None:
    nomad = agent.api
    alloc = run(nomad, busybox_image, SLOW)
    assert logmons(agent) == []
    file = tmp_path / "followed"
    command = [str(agent.binary), "alloc", "logs", "-f", "-tail", "-n=1000000", alloc]
    environment = {"NOMAD_ADDR": nomad.address, "PATH": os.defpath, "HOME": "/nonexistent"}
    with (
        file.open("wb") as output,
        subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT
        ) as follower,
    ):
        done = agent.alloc_root / alloc / "alloc" / "data" / "done"
        wait_until(done.exists, 60, lambda: nomad.story(alloc))
        wait_until(
            lambda: file.read_text().endswith(f"\n{LAST}\n"), 30, lambda: file.read_text()[-99:]
        )
        follower.kill()
    followed = file.read_text()
    assert TEXT.endswith(followed), "the follower has gaps"
    assert nomad.logs(alloc) == TEXT
    names = {path.name for path in (agent.alloc_root / alloc / "alloc" / "logs").iterdir()}
    assert {"main.stdout.0", "main.stdout.5", "main.stderr.0"} <= names
    assert not [name for name in names if name.endswith(".fifo")]
    again = run(nomad, busybox_image, SLOW)
    nomad.wait_log(again, "\n5000\n")
    agent.kill()
    agent.start()
    wait_until(lambda: nomad.logs(again) == TEXT, 60, lambda: nomad.story(again))


@pytest.mark.parametrize("pair", [(DRIVER, NOMAD), (NOMAD, DRIVER)], ids=["to-nomad", "to-driver"])
def test_a_running_task_logs_on_after_a_switch_of_the_option_and_a_restart_of_the_task(
    agent: NomadAgent, busybox_image: str, pair: tuple[str, str]
) -> None:
    nomad = agent.api
    if pair[0] == NOMAD:
        switch(agent, DRIVER, NOMAD)
    alloc = run(nomad, busybox_image, COUNTER)
    nomad.wait_log(alloc, "line 50\n")
    switch(agent, *pair)
    before = nomad.logs(alloc).count("\n")
    nomad.wait_log(alloc, f"\nline {before + 100}\n")
    lines = nomad.logs(alloc).splitlines()
    assert lines[: before + 100] == [f"line {number}" for number in range(1, before + 101)]
    nomad.restart(alloc)
    wait_until(lambda: "\nline 1\n" in nomad.logs(alloc), 60, lambda: nomad.story(alloc))
    wait_until(lambda: nomad.logs(alloc).endswith("\n"), 10)
    first, _, second = nomad.logs(alloc).partition("\nline 1\n")
    wait_until(lambda: nomad.logs(alloc).partition("\nline 1\n")[2].count("\n") > 100, 30)
    second = nomad.logs(alloc).partition("\nline 1\n")[2]
    assert first.splitlines() == [f"line {i}" for i in range(1, first.count("\n") + 2)]
    whole = second.rpartition("\n")[0].splitlines()
    assert whole == [f"line {i}" for i in range(2, len(whole) + 2)]
