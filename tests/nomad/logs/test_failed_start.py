"""Tests of a failed start: Nomad's log collector does not wait, and a later start has a log."""

from __future__ import annotations

import pytest

from tests.support.nomad.api import Json, NomadApi, make_job
from tests.support.nomad.nomad_agent import NomadAgent
from tests.support.nomad.workload import Workload
from tests.support.registries import images
from tests.support.registries.registry import Registry
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.nomad, pytest.mark.containerd]

# Words of a logmon that was stopped during the wait for a writer, four seconds later.
WAITED = "timed out waiting for read-side of process output pipe to close"
WRONG: dict[str, Json] = {
    "option": {"image": "IMAGE", "pids_limit": -5},
    "mount": {
        "image": "IMAGE",
        "mounts": [{"type": "bind", "source": "/no/such", "target": "/x", "options": ["rbind"]}],
    },
    "image": {"image": "127.0.0.1:9/no/image:1"},
    "program": {"image": "IMAGE", "command": "/no/such/program"},
}


@pytest.mark.parametrize("kind", list(WRONG))
def test_nobody_waits_for_the_logs_of_a_start_that_fails(
    nomad: NomadApi, nomad_agent: NomadAgent, work: Workload, kind: str
) -> None:
    before = len(nomad_agent.log.read_bytes())
    config = {
        name: work.image if value == "IMAGE" else value for name, value in WRONG[kind].items()
    }
    alloc = nomad.start(make_job(work.name, config))
    assert nomad.wait_over(alloc)["ClientStatus"] == "failed"

    def told() -> str:
        text = nomad_agent.log.read_bytes()[before:].decode(errors="replace")
        return "\n".join(line for line in text.splitlines() if alloc in line)

    wait_until(lambda: "plugin process exited" in told(), 30, told)
    assert WAITED not in told()


def test_a_start_that_comes_after_failed_ones_has_its_whole_log(
    nomad: NomadApi, work: Workload
) -> None:
    with Registry() as late:
        content = images.busybox_layer({"etc/new": work.mark.encode()})
        work.image = images.push(late.host, "late", "1", images.build([content]))
        late.stop()
        job = work.job("seq 1 3000; exec sleep 600", attempts=300)
        job["TaskGroups"][0]["Tasks"][0]["Config"]["image_pull_timeout"] = "1s"
        alloc = nomad.start(job)
        wait_until(lambda: nomad.task(alloc)["Restarts"] >= 3, 60, lambda: nomad.story(alloc))
        late.start()
        nomad.wait_state(alloc, "running")
    whole = "".join(f"{number}\n" for number in range(1, 3001))
    wait_until(lambda: nomad.logs(alloc) == whole, 30, lambda: nomad.logs(alloc)[-300:])
