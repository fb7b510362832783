"""Nomad's resources as limits of the kernel."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from actors.lifecycle import cgroup
from actors.model.nomad import Resources
from actors.model.settings import DriverSettings, TaskOptions
from containerd.spec.resources import Limits, oci_resources

MIB = 1024 * 1024
NODE = DriverSettings(total_mhz=8000, cores=4)


def _limits(given: Resources, node: DriverSettings = NODE, **options: Any) -> Limits:
    return cgroup.limits(given, TaskOptions(image="a", **options), node)


@pytest.mark.parametrize(
    ("memory", "maximum", "hard", "soft"),
    [(64, 0, 64, 0), (64, 128, 128, 64), (64, -1, 0, 64)],
)
def test_memory_max_is_the_limit_and_memory_the_reservation(
    memory: int, maximum: int, hard: int, soft: int
) -> None:
    given = Resources(
        memory_mb=memory, memory_max_mb=maximum, memory_limit_bytes=max(memory, maximum) * MIB
    )
    made = _limits(given)
    assert (made.memory_bytes, made.memory_reservation_bytes) == (hard * MIB, soft * MIB)
    document = oci_resources(made).get("memory", {})
    assert document.get("swap") == document.get("limit") == (hard * MIB or None)


def test_megahertz_are_shares_and_scaled_only_where_they_do_not_fit() -> None:
    assert _limits(Resources(cpu_shares=500)).cpu_shares == 500
    assert _limits(Resources(cpu_shares=1)).cpu_shares == 2
    big = DriverSettings(total_mhz=524288, cores=128)
    assert _limits(Resources(cpu_shares=1000), big).cpu_shares == 500
    assert _limits(Resources(cpu_shares=524288), big).cpu_shares == 262144
    assert _limits(Resources()).cpu_shares == 0


def test_a_hard_limit_is_the_tasks_share_of_all_cores() -> None:
    given = Resources(cpu_shares=2000, percent_ticks=0.25)
    assert _limits(given).cpu_quota_us == 0
    made = _limits(given, cpu_hard_limit=True, cpu_cfs_period_us=50_000)
    assert oci_resources(made)["cpu"] == {"shares": 2000, "quota": 50_000, "period": 50_000}
    tiny = _limits(Resources(percent_ticks=0.000001), cpu_hard_limit=True)
    assert tiny.cpu_quota_us == 1000


def test_negative_pids_are_no_limit() -> None:
    assert "pids" not in oci_resources(_limits(Resources(), pids_limit=-1))
    assert oci_resources(_limits(Resources(), pids_limit=9))["pids"] == {"limit": 9}


@pytest.mark.parametrize(("of_job", "expected"), [(0, 7), (-1, 7), (5, 5)])
def test_a_job_without_a_limit_of_pids_has_the_nodes(of_job: int, expected: int) -> None:
    options = TaskOptions(image="x", pids_limit=of_job)
    made = cgroup.limits(Resources(), options, DriverSettings(), usual_pids=7)
    assert made.pids == expected


def test_a_container_goes_into_the_cgroup_that_nomad_made_on_v2() -> None:
    def path(cpuset: str, *, v2: bool) -> str:
        return cgroup.cgroup_path(Resources(cpuset_cgroup=cpuset), "c", "nomad.slice", cgroup_v2=v2)

    nomads = "/sys/fs/cgroup/nomad.slice/share.slice/a.t.scope"
    assert path(nomads, v2=True) == "/nomad.slice/share.slice/a.t.scope"
    assert path(nomads, v2=False) == "/nomad.slice/c"
    assert path("", v2=True) == "/nomad.slice/c"
    assert path("/sys/fs/cgroup/../../etc", v2=True) == "/nomad.slice/c"


def test_the_cgroup_that_nomad_waits_for_before_a_restart_is_there_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup, "_CGROUPS", f"{tmp_path}/")
    (tmp_path / "nomad.slice/share.slice").mkdir(parents=True)

    def there(scope: str, *, v2: bool = True) -> bool:
        given = Resources(cpuset_cgroup=f"{tmp_path}/{scope}")
        asyncio.run(cgroup.restore_cgroup(given, cgroup_v2=v2))
        return (tmp_path / scope).exists()

    assert not there("nomad.slice/a.t.scope", v2=False)
    assert there("nomad.slice/a.t.scope")
    assert there("nomad.slice/a.t.scope"), "it was there already"
    assert not there("nomad.slice/share.slice/a.t.scope"), "Nomad 1.7 leaves it to the driver"
    assert not there("gone.slice/a.t.scope")
    assert not there("../a.t.scope")


def test_a_cpuset_is_joined_on_v1_only_and_only_where_cpusets_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup, "_CPUSETS", f"{tmp_path}/")
    reserved = tmp_path / "nomad/reserve/a"
    reserved.mkdir(parents=True)
    given = Resources(cpuset_cgroup=str(reserved), cpuset_cpus="0-1")
    cgroup.join_cpuset(given, 42, cgroup_v2=True)
    assert list(reserved.iterdir()) == []
    cgroup.join_cpuset(given, 42, cgroup_v2=False)
    assert (reserved / "cgroup.procs").read_text() == "42"
    assert (reserved / "cpuset.cpus").read_text() == "0-1"
    outside = Resources(cpuset_cgroup="/sys/fs/cgroup/memory/x")
    cgroup.join_cpuset(outside, 42, cgroup_v2=False)
