"""Resources of processes, read from /proc, and whether they have grown."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.plugin.driver import children

PLUGIN, LAUNCHER, WORKER = "plugin", "launcher", "workers"
CONTAINERD, SHIM = "containerd", "shims"
KINDS = (PLUGIN, LAUNCHER, WORKER, CONTAINERD, SHIM)
OURS = (PLUGIN, LAUNCHER, WORKER)
MB = 1024 * 1024
_KIB = 1024

# Allowed growth from the first third of a window to the last: a share, and a number of bytes.
MAY_GROW = {PLUGIN: (0.03, 0.5 * MB), LAUNCHER: (0.03, 0.1 * MB), WORKER: (0.03, 0.02 * MB)}
_LONG_S = 60.0
_FIRST_TIMES = 0.3 * MB
"""Memory that a worker copies at the first use of its operations during the reading of its log, see
ARCHITECTURE.md: in a short window some first uses come at the end."""
# Calls and streams under way at the moment of a sample.
MORE_FDS = {PLUGIN: 8, LAUNCHER: 0, WORKER: 2}
MORE_THREADS = {PLUGIN: 4, LAUNCHER: 0, WORKER: 0}
_FEWEST = 6
"""Samples, two for each third: fewer samples show no growth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A process at a single moment; memory in bytes.

    `own` is the memory that the process alone has written: the measure of a leak. PSS also changes
    when a process with shared pages starts or ends, or when the kernel maps a file's nearby pages.
    """

    pss: int
    rss: int
    own: int
    fds: int
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """All processes at one moment, by kind and pid; pids of zombies by the kind of their parent."""

    at: float
    processes: Mapping[str, Mapping[int, Reading]]
    zombies: Mapping[str, Collection[str]]


def read(pid: int) -> Reading | None:
    """Returns the resources of a process, or None after its end."""
    at = Path(f"/proc/{pid}")
    try:
        memory = (at / "smaps_rollup").read_text().splitlines()
        kib = {line.split(":")[0]: int(line.split()[1]) for line in memory[1:]}
        threads = int((at / "stat").read_text().rpartition(")")[2].split()[17])
        fds = sum(1 for _ in (at / "fd").iterdir())
    except (OSError, IndexError):
        return None
    # An ending process has lost the memory and still has an entry in /proc.
    if not kib.get("Rss"):
        return None
    return Reading(
        pss=kib["Pss"] * _KIB,
        rss=kib["Rss"] * _KIB,
        own=kib["Private_Dirty"] * _KIB,
        fds=fds,
        threads=threads,
    )


def sample(pids: Mapping[str, Iterable[int]]) -> Sample:
    """Reads all processes under these pids."""
    found: dict[str, dict[int, Reading]] = {}
    zombies: dict[str, list[str]] = {}
    for kind, every in pids.items():
        known = list(every)
        readings = {pid: read(pid) for pid in known}
        found[kind] = {pid: reading for pid, reading in readings.items() if reading}
        zombies[kind] = [child for pid in known for child in children(pid) if _is_zombie(child)]
    return Sample(at=time.monotonic(), processes=found, zombies=zombies)


def workers_of(launcher: int) -> list[int]:
    """Lists the pids of the workers that a launcher has forked."""
    found = []
    for pid in children(launcher):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text() == "cd-worker\n":
                found.append(int(pid))
    return found


def _is_zombie(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


@dataclass(slots=True)
class Gauge:
    """The samples of one kind of process within one window.

    The comparison has only processes that live from the first third to the last: new processes have
    another age.
    """

    kind: str
    samples: list[Sample]
    faults: list[str] = field(default_factory=list)

    def thirds(self) -> tuple[list[Sample], list[Sample], list[Sample]]:
        """Returns the beginning, middle and end of the window."""
        third = len(self.samples) // 3
        return self.samples[:third], self.samples[third:-third], self.samples[-third:]

    def value(self, part: list[Sample], of: Callable[[Reading], float]) -> float:
        """Returns the median over a part's samples of the mean of the processes that stay."""
        stay = self.stay()
        each = [
            statistics.fmean(of(one.processes[self.kind][pid]) for pid in stay)
            for one in part
            if stay
        ]
        return statistics.median(each) if each else 0.0

    def stay(self) -> set[int]:
        """Returns the pids that are in every sample."""
        every = [set(one.processes.get(self.kind, {})) for one in self.samples]
        return set.intersection(*every) if every else set()

    def judge(self) -> None:
        """Adds a fault for each value that has grown."""
        if len(self.samples) < _FEWEST:
            self.faults.append(f"{self.kind}: {len(self.samples)} samples are too few")
            return
        if not self.stay():
            self.faults.append(f"{self.kind}: none was there all the time")
            return
        before, between, after = (self.value(part, lambda one: one.own) for part in self.thirds())
        share, more = MAY_GROW[self.kind]
        allowed = before * share + more
        if self.kind == WORKER and self.samples[-1].at - self.samples[0].at < _LONG_S:
            allowed += _FIRST_TIMES
        # A process copies each shared page once, at the first write: only continued growth is a
        # leak.
        if after > before + allowed and after > between + allowed / 2:
            self.faults.append(
                f"{self.kind}: memory grew from {before / MB:.2f} to {after / MB:.2f} MB"
            )
        self._judge_count("fds", lambda one: one.fds, MORE_FDS[self.kind])
        self._judge_count("threads", lambda one: one.threads, MORE_THREADS[self.kind])

    def _judge_count(self, name: str, of: Callable[[Reading], int], more: int) -> None:
        first, _, last = self.thirds()
        before, after = self.value(first, of), self.value(last, of)
        if after > before + more:
            self.faults.append(f"{self.kind}: {name} grew from {before:.1f} to {after:.1f}")


def zombies(samples: Iterable[Sample]) -> dict[str, int]:
    """Returns the most zombies of any kind that stay from a sample to the next.

    An ended child is a zombie until its parent reaps the child.
    """
    most: dict[str, int] = defaultdict(int)
    before: Mapping[str, Collection[str]] = {}
    for one in samples:
        for kind, pids in one.zombies.items():
            most[kind] = max(most[kind], len({*pids} & {*before.get(kind, ())}))
        before = one.zombies
    return dict(most)
