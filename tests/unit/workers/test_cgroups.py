"""Readings of cgroups of both versions, from directories of the same form."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workers import cgroups

V1 = {
    "memory/memory.stat": "cache 5\nrss 6\ntotal_cache 100\ntotal_rss 200\ntotal_swap 300\n",
    "memory/memory.usage_in_bytes": "4096\n",
    "memory/memory.max_usage_in_bytes": "8192\n",
    "memory/memory.kmem.usage_in_bytes": "11\n",
    "memory/memory.kmem.max_usage_in_bytes": "12\n",
    "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
    "cpuacct/cpuacct.usage": "123456789\n",
    "cpuacct/cpuacct.stat": "user 2\nsystem 3\n",
    "cpu/cpu.stat": "nr_periods 10\nnr_throttled 4\nthrottled_time 5000\n",
}
V2 = {
    "memory.stat": "anon 200\nfile 100\nkernel 11\n",
    "memory.current": "4096\n",
    "memory.peak": "8192\n",
    "memory.swap.current": "300\n",
    "memory.events": "low 0\nhigh 0\nmax 9\noom 1\noom_kill 3\noom_group_kill 0\n",
    "cpu.stat": "usage_usec 7\nuser_usec 4\nsystem_usec 3\nnr_throttled 4\nthrottled_usec 5\n",
}


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def fill(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(text)


def v1(directory: Path) -> cgroups.Readings:
    fill(directory, V1)
    names = ("memory", "cpuacct", "cpu")
    return cgroups.Readings(v2=False, paths={name: str(directory / name) for name in names})


def v2(directory: Path) -> cgroups.Readings:
    fill(directory, V2)
    return cgroups.Readings(v2=True, paths={"": str(directory)})


def test_version_1_is_read_in_bytes_and_ns(tmp_path: Path) -> None:
    readings = v1(tmp_path)
    sample = readings.sample()
    tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    assert (sample.cpu_total_ns, sample.cpu_user_ns) == (123456789, 2 * tick_ns)
    assert sample.cpu_system_ns == 3 * tick_ns
    assert (sample.throttled_periods, sample.throttled_ns) == (4, 5000)
    assert (sample.usage, sample.max_usage) == (4096, 8192)
    assert (sample.cache, sample.rss, sample.swap) == (100, 200, 300)
    assert (sample.kernel_usage, sample.kernel_max_usage) == (11, 12)
    assert readings.oom_kills() == 3
    readings.close()


def test_version_2_counts_cpu_in_microseconds_and_is_given_in_ns(tmp_path: Path) -> None:
    readings = v2(tmp_path)
    sample = readings.sample()
    assert (sample.cpu_total_ns, sample.cpu_user_ns, sample.cpu_system_ns) == (7000, 4000, 3000)
    assert (sample.throttled_periods, sample.throttled_ns) == (4, 5000)
    assert (sample.usage, sample.max_usage, sample.swap) == (4096, 8192, 300)
    assert (sample.rss, sample.cache, sample.kernel_usage) == (200, 100, 11)
    assert sample.kernel_max_usage is None
    assert readings.oom_kills() == 3
    readings.close()


def test_a_missing_file_is_an_unknown_value(tmp_path: Path) -> None:
    readings = cgroups.Readings(v2=True, paths={"": str(tmp_path)})
    sample = readings.sample()
    assert set(sample.to_wire().values()) == {sample.t_ns, sample.m_ns, None}
    assert readings.oom_kills() == 0


def test_readings_follow_the_files_without_opening_them_again(tmp_path: Path) -> None:
    readings = v2(tmp_path)
    assert readings.sample().usage == 4096
    with (tmp_path / "memory.current").open("r+") as file:
        file.write("8191\n")
    assert readings.sample().usage == 8191
    readings.close()


def test_files_are_closed(tmp_path: Path) -> None:
    before = open_files()
    readings = v1(tmp_path)
    assert open_files() == before + 1, "only the kills before a sample"
    readings.sample()
    readings.close()
    assert open_files() == before


def test_our_own_process_is_found_where_this_host_mounts_its_hierarchies() -> None:
    readings = cgroups.locate(os.getpid())
    sample = readings.sample()
    readings.close()
    assert sample.usage is None or sample.usage > 0


def test_a_process_that_is_gone_has_no_readings() -> None:
    with pytest.raises(OSError, match="No such"):
        cgroups.locate(2**22 + 1)


def test_controllers_that_share_a_hierarchy_have_the_same_path() -> None:
    text = "5:cpu,cpuacct:/nomad/x\n4:memory:/nomad/y:z\n1:name=systemd:/\n0::/\n"
    groups = cgroups._parse_cgroup(text)
    assert groups["cpu"] == groups["cpuacct"] == "/nomad/x"
    assert groups["memory"] == "/nomad/y:z"
    assert groups[""] == "/"


def test_mounts_of_a_hybrid_host_are_told_apart() -> None:
    text = (
        "30 23 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755\n"
        "31 30 0:27 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n"
        "35 30 0:31 /lxc/a /sys/fs/cgroup/memory rw shared:16 - cgroup cgroup rw,memory\n"
        "36 30 0:32 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    )
    mounts = cgroups._parse_mountinfo(text)
    assert mounts[""] == ("/", "/sys/fs/cgroup/unified")
    assert mounts["cpuacct"] == ("/", "/sys/fs/cgroup/cpu,cpuacct")
    assert cgroups._below(*mounts["memory"], "/lxc/a/nomad/x") == "/sys/fs/cgroup/memory/nomad/x"
