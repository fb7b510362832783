"""Tests of the file by which a task's worker gets the health check."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgpack
import pytest

from actors.checks import health_check
from actors.model.settings import HealthCheck, TaskOptions
from containerd.image.config import ImageConfig
from proto.errors import Code, DriverError
from workers import protocol
from workers.health import records

OF_IMAGE = HealthCheck(test=("CMD", "/of/image"))
SPEC = {
    "process": {
        "args": ["/program"],
        "env": ["A=1"],
        "cwd": "/work",
        "user": {"uid": 7, "gid": 8},
        "capabilities": {"bounding": ["CAP_CHOWN"]},
        "noNewPrivileges": True,
    }
}


async def prepare(
    directory: Path,
    job: HealthCheck | None,
    image: ImageConfig,
    *,
    of_image: bool = False,
    health: str | None = "",
    spec: dict[str, Any] = SPEC,
) -> tuple[str, str | None]:
    """Returns the note, and the health that the link then has."""
    link = cast("Any", SimpleNamespace(health=health))
    options = TaskOptions(image="a", healthcheck=job)
    note = await health_check.prepare(directory, options, image, spec, link, of_image=of_image)
    return note, link.health


def written(directory: Path) -> records.HealthCheck | None:
    path = directory / protocol.HEALTH_CHECK
    return (
        records.HealthCheck.from_wire(msgpack.unpackb(path.read_bytes())) if path.exists() else None
    )


async def test_the_command_is_a_process_like_the_tasks_own(tmp_path: Path) -> None:
    job = HealthCheck(test=("CMD-SHELL", "a b"), interval_s=1.5, on_failure="restart")
    image = ImageConfig(stop_signal="SIGQUIT", shell=("/bin/ash", "-c"))  # noqa: S604 - no process
    assert await prepare(tmp_path, job, image) == ("", records.STARTING)
    check = written(tmp_path)
    assert check is not None
    assert (check.interval_ms, check.timeout_ms, check.retries) == (1500, 30_000, 3)
    assert (check.restarts, check.signal, check.kill_timeout_ms) == (True, 3, 5000)
    process = json.loads(check.process)
    assert process["args"] == ["/bin/ash", "-c", "a b"]
    assert process["noNewPrivileges"] is True
    own = SPEC["process"]
    assert [process[name] for name in ("env", "cwd", "user")] == [
        own[name] for name in ("env", "cwd", "user")
    ]


@pytest.mark.parametrize(
    ("job", "image", "allowed", "command"),
    [
        (None, OF_IMAGE, False, None),
        (None, OF_IMAGE, True, "/of/image"),
        (None, None, True, None),
        (HealthCheck(test=("NONE",)), OF_IMAGE, True, None),
        (HealthCheck(test=("CMD", "/own")), OF_IMAGE, True, "/own"),
        (HealthCheck(retries=1), OF_IMAGE, False, "/of/image"),
    ],
)
async def test_the_check_of_an_image_needs_the_operator_or_the_job(
    tmp_path: Path,
    job: HealthCheck | None,
    image: HealthCheck | None,
    allowed: bool,
    command: str | None,
) -> None:
    config = ImageConfig(health_check=image)
    note, health = await prepare(tmp_path, job, config, of_image=allowed)
    check = written(tmp_path)
    assert note == ""
    assert (check and json.loads(check.process)["args"]) == (command and [command])
    assert health == (records.STARTING if command else "")


async def test_a_block_without_any_test_is_reported(tmp_path: Path) -> None:
    note, health = await prepare(tmp_path, HealthCheck(interval_s=1.0), ImageConfig())
    assert note == "healthcheck has no test, and the image has none"
    assert health == ""
    assert written(tmp_path) is None


async def test_a_worker_of_an_older_release_gets_no_check_and_the_job_is_told(
    tmp_path: Path,
) -> None:
    job = HealthCheck(test=("CMD", "a"))
    note, health = await prepare(tmp_path, job, ImageConfig(), health=None)
    assert "older release" in note
    assert health is None
    assert written(tmp_path) is None


async def test_an_environment_beyond_a_request_to_the_shim_is_refused(tmp_path: Path) -> None:
    spec = {"process": {**SPEC["process"], "env": ["A=" + "x" * 100_000] * 30}}
    with pytest.raises(DriverError, match="healthcheck: the command needs") as refused:
        await prepare(tmp_path, HealthCheck(test=("CMD", "a")), ImageConfig(), spec=spec)
    assert refused.value.code is Code.INVALID
    assert written(tmp_path) is None
