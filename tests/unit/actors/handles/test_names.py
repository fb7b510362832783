"""A handle is accepted if its names are the driver's names for the task."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from actors.handles import names
from actors.handles.go_handle import GoHandle
from actors.handles.handle import VERSION, HandleState
from actors.lifecycle import recover
from actors.model.nomad import TaskConfig
from actors.model.settings import DriverSettings
from containerd.api.records import ContainerRecord
from proto.errors import Code, DriverError
from tests.support.plugin.go_task import go_handle
from tests.support.plugin.services import services

ALLOC = "0b5a8d1f-3c0b-7a0e-a0e5-9f3f4f1f2a3b"
OUT = "/var/nomad/alloc/a/alloc/logs/.web.stdout.fifo"
ERR = "/var/nomad/alloc/a/alloc/logs/.web.stderr.fifo"
TASK = TaskConfig(
    id=f"{ALLOC}/web/0123abcd", name="web", alloc_id=ALLOC, stdout_path=OUT, stderr_path=ERR
)
OURS = HandleState(
    container_id=f"web-{ALLOC}",
    containerd_namespace="nomad",
    snapshotter="overlayfs",
    boot_id="another boot",
    started_at_ns=1,
    pid=1,
    stdout_path=OUT,
    stderr_path=ERR,
    stop_signal="",
    image="busybox",
)
FORGED = (
    {"container_id": "../../../home"},
    {"container_id": "/etc"},
    {"container_id": ""},
    {"container_id": f"db-{ALLOC}"},
    {"container_id": "web-11111111-3c0b-7a0e-a0e5-9f3f4f1f2a3b"},
    {"containerd_namespace": "../k8s.io"},
    {"containerd_namespace": ""},
    {"snapshotter": "../native"},
    {"stdout_path": "/etc/shadow"},
    {"stderr_path": "/var/nomad/alloc/b/alloc/logs/.web.stderr.fifo"},
)


@pytest.mark.parametrize("fields", FORGED)
def test_what_this_driver_would_not_have_written_is_refused(fields: dict[str, str]) -> None:
    forged = dataclasses.replace(OURS, **fields)  # type: ignore[arg-type]
    with pytest.raises(DriverError, match="failed to decode task state from handle") as refused:
        names.check(TASK, forged)
    assert refused.value.code is Code.CORRUPT


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"container_id": f"{ALLOC}.web.scope", "containerd_namespace": "nomad.slice"},
        {"containerd_namespace": "an-operators-own"},
        {"stdout_path": "", "stderr_path": ""},
        {"stdout_path": "/dev/null", "stderr_path": "/dev/null"},
    ],
)
def test_what_it_writes_is_believed(fields: dict[str, str]) -> None:
    names.check(TASK, dataclasses.replace(OURS, **fields))  # type: ignore[arg-type]


def test_a_handle_of_the_go_driver_is_judged_alike() -> None:
    good = GoHandle(container_id=f"web-{ALLOC}", started_at_ns=1, stdout_path=OUT, stderr_path=ERR)
    names.check(TASK, good)
    for fields in ({"container_id": f"db-{ALLOC}"}, {"stdout_path": "/etc/shadow"}):
        forged = dataclasses.replace(good, **fields)  # type: ignore[arg-type]
        with pytest.raises(DriverError, match="failed to decode task state from handle"):
            names.check(TASK, forged)


def test_a_container_of_another_task_is_not_removed() -> None:
    def record(task_id: str) -> ContainerRecord:
        labels = {"nomad-driver-containerd.io/task-id": task_id} if task_id else {}
        return ContainerRecord(
            id=OURS.container_id,
            labels=labels,
            image="",
            runtime="",
            spec_json=b"",
            snapshotter="",
            snapshot_key="",
        )

    names.check_container(TASK, None)
    names.check_container(TASK, record(TASK.id))
    names.check_container(TASK, record(f"{ALLOC}/web/99999999"))
    for other in ("", f"{ALLOC}/db/0123abcd", "x"):
        with pytest.raises(DriverError, match="belongs to task"):
            names.check_container(TASK, record(other))


@pytest.mark.parametrize("version", [1, VERSION])
async def test_a_recovery_with_a_forged_handle_touches_nothing(
    tmp_path: Path, version: int
) -> None:
    home = tmp_path / "home"
    (home / "deep").mkdir(parents=True)
    forged = dataclasses.replace(OURS, container_id="../../home").encode()
    if version == 1:
        forged = go_handle("home", OUT, ERR, 1)
    node = services(DriverSettings(state_dir=str(tmp_path / "state" / "x")))
    (tmp_path / "state" / "x" / "tasks" / "home").mkdir(parents=True)
    with pytest.raises(DriverError, match="failed to decode task state from handle"):
        await recover.recover(node, TASK, version, forged)
    assert (home / "deep").is_dir()
    assert (tmp_path / "state" / "x" / "tasks" / "home").is_dir()
