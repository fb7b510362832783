"""The commands of docs/install.md, which install from a checkout with pip, pipx and uv.

Each downloads all packages from PyPI, and pip alone needs 20 s of processor time. So the tests run
only with `REQUIRE=packaging`.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from proto.nomad import base_pb2
from proto.release import RELEASE
from tests.packaging.wheel.conftest import assert_a_job_runs, plugin_options, run
from tests.support.needs import need_program
from tests.support.plugin.driver import Driver
from tests.support.plugin.plugin_dir import ROOT
from tests.support.plugin.plugin_process import BASE, PluginProcess
from tests.support.registries.registry import Registry

pytestmark = pytest.mark.containerd

PROGRAMS = {
    "pip": "opt/nomad/plugins/containerd-driver",
    "pipx": "usr/local/bin/containerd-driver",
    "uv": "usr/local/bin/containerd-driver",
}


def documented(tool: str) -> list[str]:
    """Returns the commands of the page with one of the tools."""
    page = (ROOT / "docs/install.md").read_text()
    section = page.partition("\n## pip, pipx and uv\n")[2].partition("\n## ")[0]
    lines = [line.strip() for line in section.splitlines() if line.startswith("    ")]
    with_tools = [line for line in lines if {"pipx", "uv"} & set(line.split())]
    if tool == "pip":
        return [line for line in lines if line not in with_tools]
    return [line for line in with_tools if tool in line.split()]


@pytest.fixture(params=PROGRAMS)
def installed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Runs the commands for a machine whose root is a directory of the test."""
    tool = request.param
    if "packaging" not in os.environ.get("REQUIRE", ""):
        pytest.skip("downloads all packages; REQUIRE=packaging runs the test")
    if tool != "pip":
        need_program(tool)
    elif importlib.util.find_spec("ensurepip") is None:
        pytest.skip("this Python has no ensurepip, so venv installs no pip")
    (tmp_path / "opt/nomad/plugins").mkdir(parents=True)
    variables = {
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PIPX_DEFAULT_PYTHON": sys.executable,
        "UV_PYTHON": sys.executable,
    }
    for line in documented(tool):
        command = line.replace("/opt/", f"{tmp_path}/opt/").replace("/usr/", f"{tmp_path}/usr/")
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=ROOT,
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, **variables},
        )
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
    return tmp_path / PROGRAMS[tool]


def test_the_documented_commands_install_a_driver_that_runs_a_job(
    installed: Path, driver: Driver, registry: Registry
) -> None:
    assert run(installed, "--version").stdout == f"containerd-driver v{RELEASE}\n"
    with PluginProcess(installed) as plugin:
        info = plugin.unary(BASE, "PluginInfo", base_pb2.PluginInfoRequest())
        assert info.plugin_version == f"v{RELEASE}"
    checked = run(installed, "doctor", *plugin_options(driver))
    assert checked.returncode == 0, f"{checked.stdout}{checked.stderr}"
    assert_a_job_runs(installed, driver, registry)
