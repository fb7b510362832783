"""Jobs of shell scripts on a real agent, and the conditions that hold through any death nearby."""

from __future__ import annotations

import uuid

from tests.support.nomad.api import DEAF, Json, NomadApi, make_job
from tests.support.nomad.leftovers import pids_with
from tests.support.waiting import wait_until

TICKING = "i=0; while true; do echo tick $i; i=$((i+1)); sleep 0.1; done"


class Workload:
    """Jobs of shell scripts in busybox, and the host's view of their processes."""

    def __init__(self, image: str) -> None:
        self.image = image
        self.name = f"job-{uuid.uuid4().hex[:8]}"
        # Part of every process's arguments, which are visible from outside of the namespaces.
        self.mark = uuid.uuid4().hex

    def job(self, script: str, **options: object) -> Json:
        """Builds a job that runs the script."""
        if "TERM" not in script:
            options = {**DEAF, **options}
        command = {"image": self.image, "command": "sh", "args": ["-c", f": {self.mark}; {script}"]}
        return make_job(self.name, command, **options)  # type: ignore[arg-type]

    def pids(self) -> list[int]:
        """Returns the task's processes in the host's numbers."""
        return pids_with(self.mark)


def event(nomad: NomadApi, alloc: str, kind: str) -> Json:
    """Returns the newest event of a kind."""
    found = [event for event in nomad.events(alloc) if event["Type"] == kind]
    assert found, f"no {kind!r} in {nomad.story(alloc)}"
    return found[-1]


def goes_on(nomad: NomadApi, work: Workload, alloc: str, before: list[int]) -> None:
    """Checks that the same process still runs, answers every call, and logs without a gap."""
    seen = nomad.logs(alloc).count("tick")
    wait_until(lambda: nomad.logs(alloc).count("tick") > seen + 5, 30, "the log stands still")
    assert set(before) & set(work.pids())
    assert nomad.task(alloc)["State"] == "running", nomad.story(alloc)
    assert nomad.task(alloc)["Restarts"] == 0
    wait_until(lambda: nomad.exec(alloc, ["echo", "here"]).stdout == "here\n", 20, "exec")
    wait_until(lambda: nomad.stats(alloc), 20, "stats")
    nomad.stop_and_wait(work.name, purge=False)
    assert event(nomad, alloc, "Terminated")["Details"]["exit_code"] == "5", nomad.story(alloc)
    lines = nomad.logs(alloc).splitlines()
    assert lines == [f"tick {number}" for number in range(len(lines))]
