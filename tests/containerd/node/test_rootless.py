"""A containerd without root: a user's own, in the namespaces of rootlesskit."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.model.nomad import Health
from plugin.host.network import cni
from proto.errors import DriverError
from tests.support.daemons import rootless
from tests.support.daemons.rootless import RootlessContainerd, User
from tests.support.plugin.driver import Driver, Job, launched
from tests.support.plugin.plugin_dir import ROOT
from tests.support.registries import archives, images
from tests.support.waiting import until

pytestmark = pytest.mark.containerd

_MAIN = [sys.executable, "-I", str(ROOT / "plugin/main.py")]
_DEVICE = Path("/dev/net/tun")
_DEADLINE_S = 60
REFUSED: dict[str, dict[str, Any]] = {
    "memory_hard_limit": {"memory_hard_limit": 100},
    "cpuset_cpus": {"cpuset_cpus": "0"},
    "pids_limit": {"pids_limit": 10},
    "cgroupns": {"cgroupns": "host"},
    'pid_mode = "host"': {"pid_mode": "host"},
    'ipc_mode = "host"': {"ipc_mode": "host"},
    "sysctl: kernel.domainname": {"sysctl": {"kernel.domainname": "x"}},
    "storage_opt": {"storage_opt": {"size": "10M"}},
    "devices: '/dev/zero' at another path": {
        "devices": [{"host_path": "/dev/zero", "container_path": "/dev/z"}]
    },
}


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    rootless.need_rootless()
    with User() as made:
        yield made


@pytest.fixture(scope="module")
def daemon(user: User) -> Iterator[RootlessContainerd]:
    with RootlessContainerd(user) as running:
        yield running


@pytest.fixture
def driver(daemon: RootlessContainerd) -> Iterator[Driver]:
    made = Driver(daemon, daemon.base / "driver", prefix=daemon.prefix)
    daemon.give(daemon.base / "driver")
    yield made
    try:
        made.wait_clean()
    finally:
        made.close()


def task(driver: Driver) -> Job:
    job = driver.task()
    assert isinstance(driver.daemon, RootlessContainerd)
    driver.daemon.give(driver.alloc_root)
    return job


async def output(driver: Driver, image: str, script: str, **options: Any) -> str:
    return await driver.output(image, script, task(driver), **options)


async def test_a_task_lives(driver: Driver, busybox_image: str) -> None:
    async with launched(driver) as session:
        look = await session.fingerprint()
        assert (look.health, look.description) == (Health.HEALTHY, "Healthy")
        assert look.attributes["driver.containerd-driver.rootless"] is True
        assert look.attributes["driver.containerd-driver.cgroup"] == "none"
        job = task(driver)
        script = "trap 'exit 7' TERM; id -u; echo oops >&2; while :; do sleep 0.1; done"
        await driver.start(job, busybox_image, script)
        await until(lambda: b"0\n" in job.out and b"oops\n" in job.err, 10)
        done = await session.exec(job.id, ["echo", "hello"])
        assert (done.stdout, done.exit.exit_code) == (b"hello\n", 0)
        # The cgroup of the task's process is containerd's, so its values are not the task's.
        usage = await anext(session.stats(job.id, 0.1))
        assert (usage.memory.usage, usage.cpu.total_ticks) == (None, 0)
        await session.stop(job.id)
        assert (await session.wait(job.id)).exit_code == 7
        await driver.end(job)


async def test_a_task_outlives_plugin_and_containerd(driver: Driver, busybox_image: str) -> None:
    async with launched(driver) as session:
        job = task(driver)
        script = "echo one; until [ -e /local/go ]; do sleep 0.1; done; echo two; exit 5"
        handle = await driver.start(job, busybox_image, script)
        await until(lambda: b"one\n" in job.out, 10)
        session.kill_plugin()
    async with launched(driver) as session:
        await session.recover(handle)
        (job.alloc.path / "t/local/go").touch()
        assert (await session.wait(job.id)).exit_code == 5
        await driver.end(job)
        assert job.out == b"one\ntwo\n"


async def test_tasks_have_users_devices_networks_and_privileges(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver):
        said = await asyncio.gather(
            output(driver, busybox_image, "ls /sys/class/net", network_mode="none"),
            output(
                driver, busybox_image, "stat -f -c %T /sys; ls /sys/class/net", host_network=True
            ),
            output(driver, busybox_image, "grep CapEff /proc/self/status", privileged=True),
            output(driver, busybox_image, "cat /proc/self/oom_score_adj", oom_score_adj=300),
            output(driver, busybox_image, "grep Seccomp: /proc/self/status", seccomp=True),
            output(driver, busybox_image, "ulimit -n", ulimit={"nofile": "512"}),
            output(
                driver,
                busybox_image,
                "head -c 3 /dev/zero | wc -c",
                devices=[{"host_path": "/dev/zero", "container_path": "/dev/zero"}],
            ),
        )
    assert said[0] == "lo\n"
    assert said[1].split()[0] == "sysfs"
    assert set(said[1].split()[1:]) == {link.name for link in Path("/sys/class/net").iterdir()}
    assert int(said[2].split()[1], 16) > 0xFFFFFFFFF
    assert [text.split()[-1] for text in said[3:]] == ["300", "2", "512", "3"]


async def test_an_impossible_option_is_refused_by_name(driver: Driver, busybox_image: str) -> None:
    async with launched(driver):
        for name, options in REFUSED.items():
            with pytest.raises(DriverError) as refused:
                await driver.start(task(driver), busybox_image, "true", **options)
            text = f"{name} is not possible without root: "
            assert text in str(refused.value)
            assert "docs/rootless.md" in str(refused.value)
        with pytest.raises(DriverError, match="the hard limit of containerd"):
            limit = {"nofile": "1000000"}
            await driver.start(task(driver), busybox_image, "true", ulimit=limit)


@pytest.mark.skipif(
    not _DEVICE.exists() or bool(_DEVICE.stat().st_mode & 0o006),
    reason=f"no {_DEVICE} of root alone",
)
async def test_a_device_of_root_is_refused_by_name(driver: Driver, busybox_image: str) -> None:
    device = {"host_path": str(_DEVICE), "container_path": str(_DEVICE)}
    async with launched(driver):
        with pytest.raises(DriverError, match="may not open the device"):
            await driver.start(task(driver), busybox_image, "true", devices=[device])


def command(daemon: RootlessContainerd, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*daemon.prefix, *_MAIN, *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
        cwd=daemon.base,
    )


def test_doctor_knows_the_limits(daemon: RootlessContainerd) -> None:
    done = command(daemon, "doctor", "--json")
    rows = {row["subject"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert rows["user"]["text"].endswith(f"user {daemon.user.uid} of the machine")
    assert rows["containerd"]["verdict"] == "ok"
    assert rows["snapshotter"]["verdict"] == "ok"
    assert rows["state"]["text"].startswith("/run/nomad-driver-containerd, ")
    assert rows["cgroups"]["verdict"] == "warn"
    assert "tasks have no limits" in rows["cgroups"]["text"]
    assert rows["logs"]["text"].startswith("each log holds 1 MiB")


def test_a_user_without_a_containerd_is_told_the_way(daemon: RootlessContainerd) -> None:
    elsewhere = [word for word in daemon.prefix if not word.startswith("XDG_RUNTIME_DIR=")]
    for words, where in ((["run", "none.json"], "stderr"), (["doctor"], "stdout")):
        done = subprocess.run(
            [*elsewhere, *_MAIN, *words], check=False, capture_output=True, text=True, timeout=60
        )
        text = " ".join(getattr(done, where).split())
        assert f"/run/user/{daemon.user.uid}/containerd/containerd.sock: No such file" in text
        assert "docs/rootless.md" in text


def test_run_has_a_bridge_network(user: User) -> None:
    if not Path("/usr/lib/cni/bridge").exists():
        pytest.skip("no CNI plugins (apt-get install containernetworking-plugins)")
    image = images.busybox_layer()
    archive = archives.tar_of(archives.docker_files([image], ("localhost/busybox:1",)))
    with RootlessContainerd(user, own_network=True) as daemon:
        (daemon.base / "busybox.tar").write_bytes(archive)
        daemon.ctr("images", "import", str(daemon.base / "busybox.tar"))
        config = {
            "image": "localhost/busybox:1",
            "image_pull_policy": "never",
            "command": "/bin/sh",
            "args": ["-c", "ls /sys/class/net; wget -qO- http://$NOMAD_ADDR_web/ || true"],
        }
        web = {"Label": "web", "To": 80}
        group = {
            "Name": "g",
            "Networks": [{"Mode": "bridge", "DynamicPorts": [web]}],
            "Tasks": [{"Name": "t", "Driver": "containerd-driver", "Config": config}],
        }
        (daemon.base / "job.json").write_text(json.dumps({"ID": "j", "TaskGroups": [group]}))
        namespace = f"--config=containerd_namespace={daemon.namespace}"
        done = command(daemon, "run", "job.json", namespace)
        assert done.returncode == 0, done.stderr
        assert "eth0" in done.stdout.split()
        assert daemon.leftovers() == []
        assert cni.BRIDGE not in daemon.inside("ls", "/sys/class/net")
