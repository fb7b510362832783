"""Test of a task with a terminal that joins a prestart sidecar, on a real agent."""

from __future__ import annotations

import uuid

import pytest

from tests.support.nomad.api import DEAF, NomadApi, make_job

pytestmark = [pytest.mark.nomad, pytest.mark.containerd]


def test_a_task_joins_a_sidecar_that_nomad_starts_first_and_has_a_terminal(
    nomad: NomadApi, busybox_image: str
) -> None:
    script = "ps | grep 'sleep 601'; tty; echo done; exec sleep 600"
    command = {"image": busybox_image, "command": "sh", "args": ["-c", script]}
    job = make_job(
        f"job-{uuid.uuid4().hex[:8]}",
        {**command, "tty": True, "interactive": True, "pid_mode": "task:side"},
        **DEAF,
    )
    (tasks,) = (group["Tasks"] for group in job["TaskGroups"])
    side = {"image": busybox_image, "command": "sleep", "args": ["601"]}
    lifecycle = {"Hook": "prestart", "Sidecar": True}
    tasks.append({**tasks[0], "Name": "side", "Config": side, "Lifecycle": lifecycle})
    alloc = nomad.run(job)
    said = nomad.wait_log(alloc, "done\r\n")
    assert "sleep 601" in said
    assert "/dev/pts/0\r\n" in said
    nomad.stop_and_wait(job["ID"])
