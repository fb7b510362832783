"""Health of a node whose tasks cannot be confined as the operator wants."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import pytest

from actors.health import confinement_checks, fingerprint
from actors.lifecycle.running import Services
from actors.model.gates import Gates
from actors.model.nomad import Health
from actors.model.settings import DriverSettings
from actors.processes.apparmor_loader import ProfileLoader
from containerd.api.records import Version
from containerd.security import apparmor, known_holes
from proto.errors import DriverError
from tests.support.plugin.services import services


class Peer:
    """Stands for a containerd and a launcher that answer."""

    def __init__(self, version: str = "2.2.0") -> None:
        self._version = version

    async def version(self) -> Version:
        return Version(version=self._version, revision="")

    async def ensure(self) -> None:
        """Does nothing."""


def node(gates: Gates, version: str = "2.2.0", **more: Any) -> Services:
    peer = cast("Any", Peer(version))
    made = services(DriverSettings(gates=gates, **more))
    return dataclasses.replace(made, containerd=peer, launcher=peer)


@pytest.mark.parametrize(
    ("profile", "enabled", "description"),
    [
        ("", False, "Healthy"),
        ("web", True, "Healthy"),
        ("web", False, "Healthy, but AppArmor is not enabled in the kernel: default_apparmor has"),
    ],
)
async def test_a_kernel_without_apparmor_is_named_and_not_refused(
    monkeypatch: pytest.MonkeyPatch, profile: str, enabled: bool, description: str
) -> None:
    monkeypatch.setattr(confinement_checks, "apparmor_is_enabled", lambda: enabled)
    taken = await fingerprint.take(node(Gates(default_apparmor=profile)))
    assert taken.health is Health.HEALTHY
    assert taken.description.startswith(description)
    assert (taken.description == "Healthy") == (description == "Healthy")


@pytest.mark.parametrize(
    ("profile", "health"), [(apparmor.NAME, Health.UNHEALTHY), ("web", Health.HEALTHY)]
)
async def test_a_node_that_cannot_load_its_default_profile_is_unhealthy(
    tmp_path: Path, profile: str, health: Health
) -> None:
    loader = ProfileLoader(tmp_path / "state", str(tmp_path))
    made = dataclasses.replace(node(Gates(default_apparmor=profile)), apparmor=loader)
    with pytest.raises(DriverError):
        await loader.loaded()
    taken = await fingerprint.take(made)
    assert taken.health is health
    assert ("no program apparmor_parser" in taken.description) == (health is Health.UNHEALTHY)


async def test_a_known_hole_makes_a_node_unhealthy_where_no_job_is_allowed_to_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(known_holes, "_CHANGELOGS", Path("/nonexistent"))
    closed = Gates(allow_known_holes=False)
    taken = await fingerprint.take(node(closed, "1.4.2"))
    assert taken.health is Health.UNHEALTHY
    assert "containerd 1.4.2 has known holes: CVE-2020-15257" in taken.description
    for opened in (node(Gates(), "1.4.2"), node(closed, "1.4.2", namespace_gates={"a": Gates()})):
        taken = await fingerprint.take(opened)
        assert taken.health is Health.HEALTHY
        assert "CVE-2020-15257" in str(taken.attributes["driver.containerd.known_holes"])
