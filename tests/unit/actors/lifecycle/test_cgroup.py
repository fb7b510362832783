"""Nomad's resources as limits of the kernel."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from actors.lifecycle import cgroup
from actors.model.nomad import Resources
from actors.model.settings import DriverSettings, TaskOptions
from containerd.spec.resources import Limits, Rate, oci_resources
from proto.errors import DriverError

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


def _memory(memory: int, maximum: int, **options: Any) -> Limits:
    given = Resources(
        memory_mb=memory, memory_max_mb=maximum, memory_limit_bytes=max(memory, maximum) * MIB
    )
    return _limits(given, **options)


@pytest.mark.parametrize(
    ("memory", "maximum", "wanted", "hard", "soft"),
    [(64, 0, 256, 256, 64), (64, 128, 256, 256, 64), (64, 512, 256, 512, 64), (64, -1, 256, 0, 64)],
)
def test_memory_hard_limit_counts_where_greater_than_memory_max(
    memory: int, maximum: int, wanted: int, hard: int, soft: int
) -> None:
    made = _memory(memory, maximum, memory_hard_limit_mb=wanted)
    assert (made.memory_bytes, made.memory_reservation_bytes) == (hard * MIB, soft * MIB)


def test_a_reservation_is_at_most_the_memory_and_swap_counts_the_memory_too() -> None:
    made = _memory(64, 0, memory_reservation_bytes=32 * MIB, memory_swap_bytes=96 * MIB)
    assert oci_resources(made)["memory"] == {
        "limit": 64 * MIB,
        "swap": 96 * MIB,
        "reservation": 32 * MIB,
    }
    assert _memory(64, 128, memory_reservation_bytes=96 * MIB).memory_reservation_bytes == 64 * MIB
    assert oci_resources(_memory(64, 0, memory_swappiness=0))["memory"]["swappiness"] == 0


@pytest.mark.parametrize(
    ("maximum", "options", "words"),
    [
        (0, {"memory_hard_limit_mb": 32}, "memory_hard_limit: 32 MB is less than the 64 MB"),
        (0, {"memory_reservation_bytes": 65 * MIB}, "memory_reservation: 68157440 bytes are more"),
        (0, {"memory_swap_bytes": 32 * MIB}, "memory_swap: 33554432 bytes are less"),
        (-1, {"memory_swap_bytes": 32 * MIB}, "memory_swap: the task has no limit of memory"),
    ],
)
def test_limits_of_the_memory_that_contradict_each_other_are_refused(
    maximum: int, options: dict[str, int], words: str
) -> None:
    with pytest.raises(DriverError, match=words):
        _memory(64, maximum, **options)


def _check(given: Resources, *, cgroup_v2: bool = True, **options: str) -> None:
    chosen = TaskOptions(image="a", **options)  # type: ignore[arg-type]
    cgroup.check_cpuset(given, chosen, cgroup_v2=cgroup_v2)


def test_processors_are_chosen_among_the_granted_ones() -> None:
    _check(Resources(cpuset_cpus="0-3,8"), cpuset_cpus="1-2,8")
    with pytest.raises(DriverError, match="cpuset_cpus: the processors 4, 9 are not granted"):
        _check(Resources(cpuset_cpus="0-3,8"), cpuset_cpus="3-4,8-9")
    with pytest.raises(DriverError, match="the processors 99999 are not granted"):
        _check(Resources(), cpuset_cpus="0,99999")
    with pytest.raises(DriverError, match="cpuset_mems: the NUMA nodes 4096 are not granted"):
        _check(Resources(), cpuset_mems="4096")


@pytest.mark.parametrize(
    ("place", "cgroup_v2"),
    [("/sys/fs/cgroup/cpuset/nomad/shared", False), ("/sys/fs/cgroup/nomad.slice/a.scope", True)],
)
def test_no_processor_is_chosen_where_nomad_changes_them(place: str, *, cgroup_v2: bool) -> None:
    with pytest.raises(DriverError, match="this Nomad chooses the processors"):
        _check(Resources(cpuset_cgroup=place), cgroup_v2=cgroup_v2, cpuset_cpus="0")


def test_own_processors_and_numa_nodes_are_in_the_spec() -> None:
    made = _limits(Resources(cpuset_cpus="0-3"), cpuset_cpus="1", cpuset_mems="0")
    assert oci_resources(made)["cpu"] == {"cpus": "1", "mems": "0"}


@pytest.mark.parametrize(
    "options", [{"file_limit": 1 << 30}, {"ulimits": {"nofile": (1024, (1 << 64) - 1)}}]
)
def test_no_task_has_more_open_files_than_the_kernel_allows(options: dict[str, Any]) -> None:
    most = int(Path("/proc/sys/fs/nr_open").read_text())
    with pytest.raises(DriverError, match=f"is more than {most}, the kernel's limit"):
        cgroup.check_open_files(TaskOptions(image="a", **options))
    cgroup.check_open_files(TaskOptions(image="a", ulimits={"nofile": (1, most)}))
    cgroup.check_open_files(TaskOptions(image="a", ulimits={"core": (0, 1 << 40)}))


def test_limits_of_disks_need_whole_disks_of_the_node() -> None:
    for path, words in (("/dev/none", "No such file"), ("/dev/null", "is not a whole disk")):
        rates = (("ReadBps", path, 1024),)
        with pytest.raises(DriverError, match=words):
            cgroup.disk_rates(TaskOptions(image="a", device_rates=rates))
    assert cgroup.disk_rates(TaskOptions(image="a")) == ()


def test_limits_of_disks_are_in_the_spec() -> None:
    rates = (
        Rate(kind="ReadBps", major=8, minor=0, limit=1024),
        Rate(kind="ReadBps", major=8, minor=16, limit=2048),
        Rate(kind="WriteIOPS", major=8, minor=0, limit=9),
    )
    assert oci_resources(Limits(io_weight=500, io_rates=rates))["blockIO"] == {
        "weight": 500,
        "throttleReadBpsDevice": [
            {"major": 8, "minor": 0, "rate": 1024},
            {"major": 8, "minor": 16, "rate": 2048},
        ],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 9}],
    }
