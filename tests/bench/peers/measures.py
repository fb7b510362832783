"""Measurements of a driver on an agent, by the events of Nomad and the counters of the kernel."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench import processes
from tests.bench.peers.agent import Peer
from tests.bench.setting import SLEEPER
from tests.support.nomad.api import Json, make_job
from tests.support.nomad.nomad_agent import NomadAgent
from tests.support.waiting import wait_until

_SECOND = 1_000_000_000
_RUNNING = ': > "$NOMAD_ALLOC_DIR/data/running"'
_LOG_BYTES = 1 << 30
_BLOCK_BYTES = 1 << 16
# The last block is in the pipe when `dd` ends, so the reader has read all bytes but 64 KiB.
_WRITE_LOG = (
    ': > "$NOMAD_ALLOC_DIR/data/begin"; '
    f"dd if=/dev/zero bs={_BLOCK_BYTES} count={_LOG_BYTES // _BLOCK_BYTES} && "
    ': > "$NOMAD_ALLOC_DIR/data/end"'
)
# The default of Nomad, and of this driver's `log_files`.
_LOG_CONFIG = {"MaxFiles": 10, "MaxFileSizeMB": 10}
_TIMEOUT_S = 120
_SETTLE_S = 5.0
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
# Kinds of processes by a word of the name or the command line; the first match counts.
KINDS: Mapping[str, Sequence[str]] = {
    "logmon": ("logmon",),
    "shim": ("containerd-shim", "conmon"),
    "worker": ("cd-worker", "docker_logger", "executor"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Memory of one idle task in MiB: of the machine, and the parts by kind of process."""

    machine: float
    parts: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Seconds from submit to the last end, and CPU seconds of all processes of the machine."""

    seconds: float
    cpu_s: float


@dataclass(slots=True)
class Results:
    """All measurements of one driver; `failure` is the reason of a missing rest."""

    setup_ms: list[float] = field(default_factory=list)
    kill_ms: list[float] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    log_mb_s: list[float] = field(default_factory=list)
    failure: str = ""


def single(agent: NomadAgent, peer: Peer, results: Results) -> None:
    """Runs and stops one task, and adds both times to the results."""
    job = _job(peer, f"{_RUNNING}; {SLEEPER}", kind="service")
    alloc = agent.api.start(job, _TIMEOUT_S)
    running = agent.alloc_root / alloc / "alloc/data/running"
    agent.api.wait_state(alloc, "running", _TIMEOUT_S)
    wait_until(running.exists, _TIMEOUT_S, lambda: agent.api.story(alloc))
    running_ns = running.stat().st_mtime_ns
    agent.api.stop_and_wait(job["ID"], purge=False, timeout_s=_TIMEOUT_S)
    events = agent.api.events(alloc)
    agent.api.stop(job["ID"], purge=True)
    results.setup_ms.append((running_ns - event_ns(events, "Task Setup")) / 1e6)
    results.kill_ms.append((event_ns(events, "Terminated") - event_ns(events, "Killing")) / 1e6)


def batch(agent: NomadAgent, peer: Peer, count: int) -> Batch:
    """Runs a batch job of `count` tasks that end at once."""
    job = _job(peer, "true", kind="batch", count=count)
    cpu = machine_cpu_s(Path("/proc/stat").read_text())
    begun_ns = time.time_ns()
    agent.api.submit(job)

    def complete() -> list[Json] | None:
        allocs = _unfailed(agent, job)
        statuses = [alloc["ClientStatus"] for alloc in allocs]
        return allocs if statuses == ["complete"] * count else None

    allocs = wait_until(complete, _TIMEOUT_S, f"{count} tasks of {peer.column} do not complete")
    spent = machine_cpu_s(Path("/proc/stat").read_text()) - cpu
    ended_ns = max(
        event_ns(state["Events"], "Terminated")
        for alloc in allocs
        for state in alloc["TaskStates"].values()
    )
    agent.api.stop(job["ID"], purge=True)
    return Batch(seconds=(ended_ns - begun_ns) / 1e9, cpu_s=spent)


def memory(agent: NomadAgent, peer: Peer, count: int) -> Memory:
    """Runs `count` idle tasks, and compares the machine's available memory before and after."""
    _settle()
    before = available_mb(Path("/proc/meminfo").read_text())
    known = set(_command_lines())
    job = _job(peer, SLEEPER, kind="service", count=count)
    agent.api.submit(job)
    wait_until(
        lambda: [_state(alloc) for alloc in _unfailed(agent, job)] == ["running"] * count,
        _TIMEOUT_S,
        f"{count} tasks of {peer.column} do not run",
    )
    _settle()
    after = available_mb(Path("/proc/meminfo").read_text())
    parts = dict.fromkeys(KINDS, 0.0)
    for pid, line in _command_lines().items():
        kind = None if pid in known else kind_of(line)
        if kind is not None:
            with contextlib.suppress(OSError):  # the process has ended
                parts[kind] += processes.pss_mb(pid) / count
    agent.api.stop_and_wait(job["ID"], timeout_s=_TIMEOUT_S)
    return Memory(machine=(before - after) / count, parts=parts)


def log_mb_s(agent: NomadAgent, peer: Peer) -> float:
    """Runs a task that writes 1 GiB of log in blocks of 64 KiB; returns MB (10^6 bytes) a second.

    The task itself marks begin and end. So the start and the end of the task do not count.
    """
    job = _job(peer, _WRITE_LOG, kind="batch")
    group = job["TaskGroups"][0]
    group["EphemeralDisk"] = {"SizeMB": 300}
    group["Tasks"][0]["LogConfig"] = _LOG_CONFIG
    alloc = agent.api.start(job, _TIMEOUT_S)
    data = agent.alloc_root / alloc / "alloc/data"
    wait_until((data / "end").exists, _TIMEOUT_S, lambda: agent.api.story(alloc))
    spent_ns = (data / "end").stat().st_mtime_ns - (data / "begin").stat().st_mtime_ns
    agent.api.stop(job["ID"], purge=True)
    return _LOG_BYTES * 1e3 / spent_ns


def _job(peer: Peer, script: str, *, kind: str, count: int = 1) -> Json:
    name = f"bench-{uuid.uuid4().hex[:8]}"
    config = peer.task(script)
    return make_job(
        name, config, kind=kind, count=count, driver=peer.driver, KillTimeout=10 * _SECOND
    )


def _unfailed(agent: NomadAgent, job: Json) -> list[Json]:
    """Returns the job's allocations; raises AssertionError if a task has failed."""
    allocs = agent.api.allocs(job["ID"])
    for alloc in allocs:
        assert alloc["ClientStatus"] not in {"failed", "lost"}, agent.api.story(alloc["ID"])
    return allocs


def _state(alloc: Json) -> str:
    states: Mapping[str, Any] = alloc.get("TaskStates") or {}
    return str((states.get("main") or {}).get("State", ""))


def _settle() -> None:
    """Waits a fixed time: each process gives back the memory of its start."""
    deadline = time.monotonic() + _SETTLE_S
    wait_until(lambda: time.monotonic() >= deadline, 2 * _SETTLE_S)


def _command_lines() -> dict[int, str]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = [(entry / "comm").read_bytes(), (entry / "cmdline").read_bytes()]
            except OSError:  # the process has ended
                continue
            found[int(entry.name)] = b" ".join(words).decode(errors="replace")
    return found


def event_ns(events: Iterable[Mapping[str, Any]], kind: str) -> int:
    """Returns the time of a task's first event of a kind, in ns.

    Raises:
        AssertionError: there is none.
    """
    for event in events:
        if event["Type"] == kind:
            return int(event["Time"])
    raise AssertionError(f"the task has no event {kind!r}")


def machine_cpu_s(stat: str) -> float:
    """Returns the CPU seconds of all processes and of the kernel since the machine's start.

    Args:
        stat: content of /proc/stat; the first line has user, nice, system, idle, iowait, irq and
            softirq in ticks, as in proc(5).
    """
    ticks = stat.partition("\n")[0].split()[1:8]
    user, nice, system, _idle, _iowait, irq, softirq = map(int, ticks)
    return (user + nice + system + irq + softirq) * _TICK_S


def available_mb(meminfo: str) -> float:
    """Returns MemAvailable of /proc/meminfo, in MiB."""
    for line in meminfo.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("/proc/meminfo has no MemAvailable")


def kind_of(command_line: str) -> str | None:
    """Returns the kind of a process beside a task, or None for another process."""
    for kind, words in KINDS.items():
        if any(word in command_line for word in words):
            return kind
    return None
