"""`volume` blocks of type host by the embedded host, on real containers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.plugin.driver import Driver
from tests.support.plugin.plugin_dir import ROOT

pytestmark = pytest.mark.containerd


def run(driver: Driver, job: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-I", str(ROOT / "plugin/main.py"), "run", str(job)),
            *("--alloc-dir", str(driver.alloc_root)),
            *("--config", f"containerd_address={driver.containerd.address}"),
            *("--config", f"containerd_namespace={driver.containerd.namespace}"),
            *("--config", f"state_dir={driver.state_dir}"),
            *words,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def job_file(directory: Path, image: str, script: str, *mounts: dict[str, Any]) -> Path:
    config = {"image": image, "command": "/bin/sh", "args": ["-c", script]}
    task = {"Name": "t", "Driver": "containerd-driver", "Config": config, "VolumeMounts": mounts}
    volumes = {
        "work": {"Type": "host", "Source": "s1"},
        "rest": {"Type": "host", "Source": "s2"},
    }
    group = {"Name": "g", "Volumes": volumes, "Tasks": [task]}
    path = directory / "job.json"
    path.write_text(json.dumps({"ID": "j", "TaskGroups": [group]}))
    return path


def test_a_task_writes_into_a_volume_and_only_reads_a_read_only_one(
    driver: Driver, busybox_image: str, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "there").write_text(name)
    job = job_file(
        tmp_path,
        busybox_image,
        "cat /work/there /rest/there /again/there; echo new >/work/new;"
        " touch /rest/x || touch /again/x || echo read-only",
        {"Volume": "work", "Destination": "/work"},
        {"Volume": "rest", "Destination": "/rest"},
        {"Volume": "work", "Destination": "/again", "ReadOnly": True},
    )
    done = run(
        driver,
        job,
        *("--host-volume", f"s1={tmp_path}/one"),
        *("--host-volume", f"s2={tmp_path}/two:ro"),
    )
    assert (done.returncode, done.stdout) == (0, "onetwooneread-only\n"), done.stderr
    assert (tmp_path / "one" / "new").read_text() == "new\n"
    assert not (tmp_path / "two" / "x").exists()


def test_volumes_come_from_an_agents_file_too(
    driver: Driver, busybox_image: str, tmp_path: Path
) -> None:
    (tmp_path / "one").mkdir()
    agent = tmp_path / "agent.hcl"
    agent.write_text(
        f'client {{\n host_volume "s1" {{\n path = "{tmp_path}/one"\n read_only = true\n}}\n'
        f' host_volume "s2" {{\n path = "{tmp_path}"\n}}\n}}\n'
    )
    mount = {"Volume": "work", "Destination": "/work"}
    job = job_file(tmp_path, busybox_image, "touch /work/x || echo read-only", mount)
    done = run(driver, job, "--config-file", str(agent))
    assert (done.returncode, done.stdout) == (0, "read-only\n"), done.stderr


def test_a_volume_that_this_machine_has_not_stops_the_job_first(
    driver: Driver, tmp_path: Path
) -> None:
    job = job_file(tmp_path, "i", "true")
    done = run(driver, job, "--host-volume", f"s1={tmp_path}")
    assert done.returncode == 125
    assert 'volume "rest": this machine has no host volume "s2"; known: s1' in done.stderr
    assert "--host-volume s2=PATH" in done.stderr
    assert not driver.alloc_root.exists()
