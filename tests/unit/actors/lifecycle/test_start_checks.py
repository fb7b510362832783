"""Checks of a start that depend on the node: before an image is asked for or an object exists."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import pytest

from actors.lifecycle import preparation, start
from actors.lifecycle.running import Services
from actors.model.gates import Gates
from actors.model.nomad import TaskConfig
from actors.model.settings import DriverSettings, TaskOptions
from actors.processes.apparmor_loader import ProfileLoader
from actors.provision.log_ends import LogEnds
from containerd.api.records import Version
from containerd.security import apparmor, known_holes, policy
from proto.errors import Code, DriverError
from tests.support.plugin.services import services

TASK = TaskConfig(id="a/web/1", name="web", alloc_id="a")
# A job without an early look-up of the image: nothing is asked before the checks.
JOB = TaskOptions(image="redis", image_pull_policy="always")


class Containerd:
    """Answers the version only."""

    default_snapshotter = "overlayfs"

    async def version(self) -> Version:
        return Version(version="1.4.2", revision="")


def with_gates(gates: Gates, **fields: Any) -> Services:
    made = services(DriverSettings(gates=gates))
    return dataclasses.replace(made, containerd=cast("Any", Containerd()), **fields)


async def refused(made: Services) -> DriverError:
    with pytest.raises(DriverError) as caught:
        await start.start(made, TASK, JOB, LogEnds(TASK))
    return caught.value


async def test_a_task_with_the_drivers_profile_waits_for_the_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = dataclasses.replace(policy.this_host(), apparmor=True)
    monkeypatch.setattr(policy, "this_host", lambda: host)
    loader = ProfileLoader(tmp_path / "state", str(tmp_path))
    made = with_gates(Gates(default_apparmor=apparmor.NAME), apparmor=loader)
    error = await refused(made)
    assert "cannot load the AppArmor profile containerd-driver-default" in str(error)
    assert error.recoverable
    prepared = await preparation.prepare(made, TASK, JOB)
    assert prepared.plan.security.apparmor_profile == apparmor.NAME


async def test_a_node_with_a_known_hole_is_refused_by_its_gate_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(known_holes, "_CHANGELOGS", Path("/nonexistent"))
    error = await refused(with_gates(Gates(allow_known_holes=False)))
    assert error.code is Code.DENIED
    assert "containerd 1.4.2 has known holes: CVE-2020-15257" in str(error)
    opened = with_gates(Gates())
    await preparation.check_holes(opened, await preparation.prepare(opened, TASK, JOB))
