"""A health check that ends its task, on a real agent: the job's restart block applies."""

from __future__ import annotations

import pytest

from tests.support.nomad.api import NomadApi
from tests.support.nomad.workload import Workload
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.nomad, pytest.mark.containerd]

# The first run of the task is sick, the second one is well.
SCRIPT = "echo begun >>/alloc/runs; trap 'exit 0' TERM; while :; do sleep 0.05; done"
CHECK = {
    "test": 'test "$(wc -l </alloc/runs)" -ge 2 || { echo sick; exit 4; }',
    "interval": "200ms",
    "retries": 2,
    "on_failure": "restart",
}


def test_an_unhealthy_task_is_restarted_by_its_restart_block(
    nomad: NomadApi, work: Workload
) -> None:
    job = work.job(SCRIPT, attempts=1)
    job["TaskGroups"][0]["Tasks"][0]["Config"]["healthcheck"] = [CHECK]
    alloc = nomad.run(job)
    wait_until(
        lambda: "Health check: healthy" in nomad.story(alloc), 60, lambda: nomad.story(alloc)
    )
    told = [event["DisplayMessage"] for event in nomad.events(alloc)]
    reason = "unhealthy: the health check failed 2 times in a row (exit code 4: sick)"
    (sick,) = [text for text in told if text.startswith("Health check: unhealthy")]
    assert sick.endswith("the task is ended, so that its restart policy applies")
    (ended,) = [text for text in told if text.startswith("Exit Code")]
    assert ended == f'Exit Code: 1, Exit Message: "{reason}"'
    task = nomad.task(alloc)
    assert (task["State"], task["Restarts"], task["Failed"]) == ("running", 1, False)
    nomad.stop_and_wait(work.name)


def test_a_task_that_stays_unhealthy_fails_after_its_last_restart(
    nomad: NomadApi, work: Workload
) -> None:
    job = work.job(SCRIPT, attempts=0)
    job["TaskGroups"][0]["Tasks"][0]["Config"]["healthcheck"] = [CHECK]
    alloc = nomad.start(job)
    assert nomad.wait_over(alloc)["ClientStatus"] == "failed"
    assert "unhealthy: the health check failed 2 times in a row" in nomad.story(alloc)
