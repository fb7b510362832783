"""Tests of the wheel, installed beside packages that own the names of the driver's folders."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from proto.nomad import base_pb2
from proto.release import RELEASE
from tests.support.needs import missing
from tests.support.plugin.driver import Driver
from tests.support.plugin.plugin_dir import ROOT
from tests.support.plugin.plugin_process import BASE, PluginProcess
from tests.support.registries import images
from tests.support.registries.registry import Registry

FOLDERS = ("actors", "containerd", "plugin", "proto", "workers")
NAME = "containerd_driver"


def pip(*words: str | Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *words],
        check=False,
        capture_output=True,
        text=True,
    )
    if "matching distribution found for hatchling" in done.stderr:
        missing("packaging", "pip cannot fetch hatchling, which builds the wheel")
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds the wheel of this checkout, as a user does."""
    directory = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", directory, ROOT)
    (built,) = directory.iterdir()
    assert built.name == f"{NAME}-{RELEASE}-py3-none-any.whl"
    return built


def owner(directory: Path, name: str) -> Path:
    """Makes a wheel of another project with a top-level module `name`."""
    made = directory / f"owner_of_{name}-1-py3-none-any.whl"
    about = f"owner_of_{name}-1.dist-info"
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(f"{name}/__init__.py", "OWNER = 'another project'\n")
        archive.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: owner-of-{name}\nVersion: 1\n"
        )
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/RECORD", "")
    return made


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a virtual environment with the wheel and other owners of the names of its folders.

    The dependencies are those of the tests' own Python.
    """
    directory = tmp_path_factory.mktemp("environment")
    venv.create(directory, with_pip=False)
    (site,) = directory.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    python = directory / "bin" / "python"
    owners = owner(directory, "proto"), owner(directory, "containerd")
    options = "--quiet", "--no-deps", "--no-index", "--ignore-installed"
    pip("--python", python, "install", *options, wheel, *owners)
    return directory


@pytest.fixture
def program(environment: Path, tmp_path: Path) -> Path:
    """Links the wheel's program into an agent's `plugin_dir`."""
    link = tmp_path / "containerd-driver"
    link.symlink_to(environment / "bin" / "containerd-driver")
    return link


def run(program: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program), *words],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], **variables},
        timeout=120,
    )


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


@pytest.mark.containerd
def test_a_job_runs_by_the_wheel_alone(
    driver: Driver, registry: Registry, program: Path, tmp_path: Path
) -> None:
    image = images.build([images.busybox_layer()], {"Cmd": ["/bin/sh"]})
    name = images.push(registry.host, "from-wheel", "1", image)
    words = [
        *("run", str(ROOT / "example" / "hello.nomad"), "--var", f"image={name}"),
        *("--alloc-dir", str(tmp_path / "allocs")),
        *("--config", f"containerd_address={driver.containerd.address}"),
        *("--config", f"containerd_namespace={driver.containerd.namespace}"),
        *("--config", f"state_dir={driver.state_dir}"),
    ]
    done = run(program, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("hello 1 "), done.stdout
