"""Tests of the wheel, installed beside packages that own the names of the driver's folders."""

from __future__ import annotations

import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

from proto.nomad import base_pb2
from proto.release import RELEASE
from tests.nomad.conftest import built, plugin_config
from tests.packaging.wheel.conftest import NAME, assert_a_job_runs, link, run
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.nomad.go_host import GoHost
from tests.support.plugin.driver import Driver
from tests.support.plugin.plugin_dir import ROOT
from tests.support.plugin.plugin_process import BASE, PluginProcess
from tests.support.registries.registry import Registry

FOLDERS = ("actors", "containerd", "plugin", "proto", "workers")


def test_the_wheel_has_each_module_below_one_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    modules = {
        f"{NAME}/{path.relative_to(ROOT)}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
    }
    about = f"{NAME}-{RELEASE}.dist-info/"
    assert {name for name in names if name.startswith(f"{NAME}/")} == {
        *modules,
        f"{NAME}/__init__.py",
    }
    data = f"{NAME}-{RELEASE}.data/data/share/"
    assert {name for name in names if not name.startswith((f"{NAME}/", about))} == {
        f"{data}man/man1/containerd-driver.1",
        f"{data}bash-completion/completions/containerd-driver",
    }
    assert f"{about}licenses/LICENSE" in names


def test_packages_with_the_names_of_the_folders_keep_their_modules(
    environment: Path, program: Path
) -> None:
    show = "import containerd, proto; print(proto.OWNER, containerd.OWNER, sep=', ')"
    other = run(environment / "bin" / "python", "-I", "-c", show)
    assert other.stdout == "another project, another project\n", other.stderr
    assert run(program, "--version").stdout == f"containerd-driver v{RELEASE}\n"


def test_the_environment_of_an_agent_replaces_no_module(program: Path, tmp_path: Path) -> None:
    (tmp_path / "grpc.py").write_text("raise SystemExit('replaced')")
    (program.resolve().parent / "argparse.py").write_text("raise SystemExit('replaced')")
    ended = run(program, "doctor", "--help", PYTHONPATH=str(tmp_path))
    (program.resolve().parent / "argparse.py").unlink()
    assert ended.returncode == 0, ended.stderr


def test_a_plugin_from_the_wheel_answers_an_agent(program: Path) -> None:
    with PluginProcess(program) as plugin:
        info = plugin.unary(BASE, "PluginInfo", base_pb2.PluginInfoRequest())
        assert (info.name, info.plugin_version) == ("containerd-driver", f"v{RELEASE}")
        plugin.shut_down()
        assert plugin.child.returncode == 0


def test_an_installation_of_one_user_is_refused_by_name(wheel: Path, tmp_path: Path) -> None:
    python = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    show = "import site; print(site.getusersitepackages())"
    place = run(python, "-c", show, PYTHONUSERBASE=str(tmp_path)).stdout.strip()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    start = "import sys, containerd_driver; sys.exit(containerd_driver.main())"
    ended = run(python, "-c", start, PYTHONUSERBASE=str(tmp_path))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert f"{place}/{NAME} belongs to one user" in ended.stderr


@pytest.mark.nomad
@pytest.mark.containerd
def test_nomads_own_code_drives_a_plugin_from_the_wheel(
    environment: Path, containerd: ContainerdDaemon, busybox_image: str
) -> None:
    config = f"""
        image   = "{busybox_image}"
        command = "sh"
        args    = ["-c", "echo hello; trap 'exit 4' TERM; while :; do sleep 0.1; done"]
    """
    with tempfile.TemporaryDirectory(prefix="cd-h-", dir="/run") as folder:
        state_dir = Path(folder)
        host = GoHost(built("host-1.11.0"), plugin_config(containerd, state_dir), state_dir)
        link(environment, host.plugins)
        with host:
            task = host.run(config)
            task.wait_log("hello\n")
            host.call("kill_plugin")
            host.call("recover", task_id=task.id)
            assert host.exec(task, "echo", "back") == (0, "back\n", "")
            waiting = host.send("wait", task_id=task.id)
            host.call("stop", task_id=task.id, timeout_s=20, signal="")
            assert waiting.result(30)["exit_code"] == 4
            host.end(task)


@pytest.mark.containerd
def test_a_job_runs_by_the_wheel_alone(driver: Driver, registry: Registry, program: Path) -> None:
    assert_a_job_runs(program, driver, registry)
