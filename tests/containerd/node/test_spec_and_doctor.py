"""`containerd-driver spec` and `doctor` on a real containerd."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from actors.model import cpu_topology
from actors.model.nomad import Resources
from containerd.api import features
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.needs import need_containerd
from tests.support.plugin.driver import Driver, launched
from tests.support.plugin.plugin_dir import ROOT
from tests.support.registries import images
from tests.support.registries.registry import Registry

pytestmark = pytest.mark.containerd
CPU_MHZ = 700
OLD_MIRRORS = """
[plugins."io.containerd.cri.v1.images".registry.mirrors."docker.io"]
  endpoint = ["http://127.0.0.1:1"]
"""


def command(driver: Driver, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-I", str(ROOT / "plugin/main.py"), *words),
            *("--config", f"containerd_address={driver.containerd.address}"),
            *("--config", f"containerd_namespace={driver.containerd.namespace}"),
            *("--config", f"state_dir={driver.state_dir}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def job_file(directory: Path, config: dict[str, Any], **task: Any) -> str:
    tasks = [{"Name": "t", "Driver": "containerd-driver", "Config": config, **task}]
    path = directory / "job.json"
    path.write_text(json.dumps({"ID": "j", "TaskGroups": [{"Name": "g", "Tasks": tasks}]}))
    return str(path)


def comparable(spec: dict[str, Any]) -> dict[str, Any]:
    """Removes the values of the allocation from a spec."""
    process = dict(spec["process"])
    process["env"] = [e for e in process["env"] if not e.startswith(("NOMAD_", "HOSTNAME="))]
    linux = {key: value for key, value in spec["linux"].items() if key != "cgroupsPath"}
    mounts = [(m["destination"], m["type"], m["options"]) for m in spec["mounts"]]
    kept = {"process": process, "linux": linux, "mounts": mounts, "root": spec["root"]}
    written: dict[str, Any] = written_out(kept)
    return written


def written_out(value: Any) -> Any:
    """Removes zeros and empty values, which ctr omits."""
    if isinstance(value, dict):
        return {key: written_out(inner) for key, inner in value.items() if inner}
    return [written_out(inner) for inner in value] if isinstance(value, list) else value


@pytest.fixture
def image(registry: Registry) -> str:
    """Pushes an image with a user, a command and an environment."""
    users = {"etc/passwd": b"ann:x:1007:1008::/home/ann:\n", "etc/group": b"ops:x:77:ann\n"}
    config = {"Cmd": ["/bin/sh", "-c", "sleep 60"], "User": "ann", "Env": ["A=1"]}
    built = images.build([images.busybox_layer(), images.layer(users)], config)
    return images.push(registry.host, "spec-of", "1", built)


async def test_the_spec_is_what_the_container_gets(
    driver: Driver, image: str, tmp_path: Path
) -> None:
    config = {
        "image": image,
        "cap_add": ["NET_ADMIN"],
        "seccomp": True,
        "readonly_rootfs": True,
        "cpu_hard_limit": True,
        "mounts": [{"type": "tmpfs", "target": "/t", "options": ["size=1m"]}],
    }
    async with launched(driver) as session:
        limit = Resources(
            cpu_shares=CPU_MHZ,
            memory_mb=64,
            memory_limit_bytes=64 << 20,
            percent_ticks=cpu_topology.measure().share(CPU_MHZ),
        )
        job = driver.task(resources=limit)
        job.read_logs()
        await session.start(job.config, config)
        told = json.loads(driver.daemon.ctr("containers", "info", job.container))
        await driver.end(job)
    given = told["Spec"]
    resources = {"CPU": CPU_MHZ, "MemoryMB": 64}
    shown = command(driver, "spec", job_file(tmp_path, config, Resources=resources))
    assert shown.returncode == 0, shown.stderr
    assert comparable(json.loads(shown.stdout)) == comparable(given)
    assert given["process"]["user"] == {"uid": 1007, "gid": 1008, "additionalGids": [1008, 77]}
    driver.wait_clean()


def test_a_spec_names_the_networks_namespace_and_makes_none(
    driver: Driver, image: str, tmp_path: Path
) -> None:
    job = json.loads(Path(job_file(tmp_path, {"image": image, "command": "/bin/x"})).read_text())
    job["TaskGroups"][0]["Networks"] = [{"Mode": "bridge", "DynamicPorts": [{"Label": "a"}]}]
    (tmp_path / "job.json").write_text(json.dumps(job))
    shown = command(driver, "spec", str(tmp_path / "job.json"))
    assert shown.returncode == 0, shown.stderr
    spec = json.loads(shown.stdout)
    env = dict(line.split("=", 1) for line in spec["process"]["env"])
    (network,) = (n for n in spec["linux"]["namespaces"] if n["type"] == "network")
    assert network["path"] == f"/var/run/netns/{env['NOMAD_ALLOC_ID']}"
    assert not Path(network["path"]).exists()
    assert "NOMAD_PORT_a" in env


def test_a_spec_without_its_image_says_what_is_missing(driver: Driver, tmp_path: Path) -> None:
    config = {"image": "127.0.0.1:1/nowhere:1", "command": "/bin/x"}
    shown = command(driver, "spec", job_file(tmp_path, config))
    assert shown.returncode == 0
    assert json.loads(shown.stdout)["process"]["args"] == ["/bin/x"]
    assert "127.0.0.1:1/nowhere:1 is not on this machine" in shown.stderr


async def test_the_spec_of_a_job_with_an_archive_is_of_no_other_image(
    driver: Driver, image: str, tmp_path: Path
) -> None:
    async with launched(driver):
        await driver.output(image, "true")
    config = {"image": image, "load": "image.tar", "command": "/bin/x"}
    shown = command(driver, "spec", job_file(tmp_path, config))
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["process"]["user"]["uid"] == 0
    assert f"{image} comes with the job's archive" in shown.stderr


async def test_a_spec_of_another_machines_image_names_both_platforms(
    driver: Driver, registry: Registry, tmp_path: Path
) -> None:
    built = images.build([images.busybox_layer({"salt": b"other"})], {}, "s390x")
    image = images.push(registry.host, "spec-of-other", "1", built)
    async with launched(driver):
        await driver.output(image, "true")
    shown = command(driver, "spec", job_file(tmp_path, {"image": image, "command": "/bin/x"}))
    assert shown.returncode == 0, shown.stderr
    assert "built for linux/s390x, and this machine is linux/" in shown.stderr


def test_what_only_the_image_could_say_is_no_mistake_of_the_job(
    driver: Driver, tmp_path: Path
) -> None:
    shown = command(driver, "spec", job_file(tmp_path, {"image": "127.0.0.1:1/nowhere:1"}))
    assert (shown.returncode, shown.stdout) == (1, "")
    assert "depends on the image 127.0.0.1:1/nowhere:1, which is not on this" in shown.stderr
    assert "run the job once, or pull the image" in shown.stderr


def test_a_job_that_cannot_start_has_no_spec(driver: Driver, tmp_path: Path) -> None:
    shown = command(driver, "spec", job_file(tmp_path, {"image": "i", "cap_add": ["NO_SUCH"]}))
    assert shown.returncode == 1
    assert shown.stdout == ""
    assert "t: " in shown.stderr
    assert "NO_SUCH" in shown.stderr
    assert "depends on the image" not in shown.stderr


def test_the_doctor_finds_this_machine_fit(driver: Driver) -> None:
    shown = command(driver, "doctor", "--json")
    assert shown.returncode == 0, shown.stdout
    found = {line["subject"]: line for line in map(json.loads, shown.stdout.splitlines())}
    assert found["containerd"]["verdict"] == "ok"
    assert driver.containerd.namespace in found["containerd"]["text"]
    assert ("layers" in found) is bool(features.lacking(driver.containerd.version))
    assert found["snapshotter"]["text"] == "overlayfs"
    assert "GB free" in found["disk"]["text"]


def test_the_doctor_shows_each_deprecated_feature_in_use(tmp_path: Path) -> None:
    """Configures mirrors of images in a form that containerd 2 gives up."""
    need_containerd()
    daemon = ContainerdDaemon()
    if daemon.version.startswith("1."):
        daemon.close()
        pytest.skip(f"containerd {daemon.version} has this option in another plugin")
    daemon.configure(OLD_MIRRORS, plugin="io.containerd.cri.v1.images")
    driver = Driver(daemon, tmp_path)
    try:
        daemon.start()
        said = json.loads(daemon.ctr("deprecations", "list", "--format", "json"))
        expected = {
            f"containerd {daemon.version} warns of {one['id'].rpartition('/')[2]}: {one['message']}"
            for one in said
        }
        assert any("cri-registry-mirrors" in text for text in expected)
        shown = command(driver, "doctor", "--json")
        assert shown.returncode == 0, shown.stdout
        found = [json.loads(line) for line in shown.stdout.splitlines()]
        assert {one["text"] for one in found if one["subject"] == "deprecated"} == expected
        for_people = " ".join(command(driver, "doctor").stdout.split())
        assert all(" ".join(text.split()) in for_people for text in expected)
    finally:
        driver.close()
        daemon.close()
