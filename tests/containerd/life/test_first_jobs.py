"""Tests of README's first jobs, unchanged, with Docker Hub behind a mirror on loopback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.plugin.driver import Driver
from tests.support.plugin.plugin_dir import ROOT
from tests.support.registries import images
from tests.support.registries.registry import Registry
from tests.support.waiting import slowed

pytestmark = pytest.mark.containerd


@pytest.mark.parametrize("job", ["packaging/debian/example/hello.json", "example/hello.nomad"])
def test_a_first_job_prints_its_hello(
    driver: Driver, registry: Registry, tmp_path: Path, job: str
) -> None:
    image = images.build([images.busybox_layer()], {"Cmd": ["/bin/sh"]})
    images.push(registry.host, "library/busybox", "1.36", image)
    hosts = tmp_path / "docker.io" / "hosts.toml"
    hosts.parent.mkdir()
    mirror = f'"http://{registry.host}"'
    hosts.write_text(f"server = {mirror}\n")
    done = subprocess.run(
        [
            *(sys.executable, "-I", str(ROOT / "plugin/main.py"), "run", str(ROOT / job)),
            *("--config", f"registry_config_path={tmp_path}"),
            *("--config", f"containerd_address={driver.containerd.address}"),
            *("--config", f"containerd_namespace={driver.containerd.namespace}"),
            *("--config", f"state_dir={driver.state_dir}"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=slowed(120),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("hello "), done.stdout
