"""The wheel, built once, and virtual environments with the wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from proto.release import RELEASE
from tests.support.needs import missing
from tests.support.plugin.driver import Driver
from tests.support.plugin.plugin_dir import ROOT
from tests.support.registries import images
from tests.support.registries.registry import Registry

NAME = "containerd_driver"
NEWER = f"{RELEASE}.99"


def pip(*words: str | Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *words],
        check=False,
        capture_output=True,
        text=True,
    )
    said = f"{done.stdout}{done.stderr}"
    if done.returncode and "matching distribution found for hatchling" in said:
        missing("packaging", "pip cannot fetch hatchling, which builds the wheel")
    assert done.returncode == 0, said


def run(program: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program), *words],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], **variables},
        timeout=120,
    )


def plugin_options(driver: Driver) -> list[str]:
    """Returns the plugin block of a driver as options of the command."""
    return [
        *("--config", f"containerd_address={driver.containerd.address}"),
        *("--config", f"containerd_namespace={driver.containerd.namespace}"),
        *("--config", f"state_dir={driver.state_dir}"),
    ]


def assert_a_job_runs(program: Path, driver: Driver, registry: Registry) -> None:
    image = images.build([images.busybox_layer()], {"Cmd": ["/bin/sh"]})
    name = images.push(registry.host, "from-wheel", "1", image)
    words = "run", str(ROOT / "example" / "hello.nomad"), "--var", f"image={name}"
    place = "--alloc-dir", str(driver.alloc_root)
    done = run(program, *words, *place, *plugin_options(driver))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("hello 1 "), done.stdout


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


def install(environment: Path, *wheels: Path) -> None:
    """Installs wheels into an environment, as `pip install --upgrade` does."""
    options = "--quiet", "--upgrade", "--no-deps", "--no-index"
    pip("--python", environment / "bin" / "python", "install", *options, *wheels)


def link(environment: Path, plugin_dir: Path) -> Path:
    """Links the wheel's program into an agent's `plugin_dir` in place of another program."""
    program = plugin_dir / "containerd-driver"
    program.unlink(missing_ok=True)
    program.symlink_to(environment / "bin" / "containerd-driver")
    return program


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds the wheel of this checkout, as a user does."""
    directory = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", directory, ROOT)
    (built,) = directory.iterdir()
    assert built.name == f"{NAME}-{RELEASE}-py3-none-any.whl"
    return built


@pytest.fixture(scope="session")
def newer_wheel(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes the same wheel as a later release."""
    made = tmp_path_factory.mktemp("newer") / wheel.name.replace(RELEASE, NEWER)
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith(("/METADATA", "/RECORD", "/proto/release.py")):
                data = data.replace(RELEASE.encode(), NEWER.encode())
            new.writestr(name.replace(RELEASE, NEWER), data)
    return made


@pytest.fixture(scope="session")
def make_environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes virtual environments with the wheel, and with other wheels.

    The dependencies are those of the tests' own Python.
    """

    def make(*others: Path) -> Path:
        directory = tmp_path_factory.mktemp("environment")
        venv.create(directory, with_pip=False)
        (site,) = directory.glob("lib/python*/site-packages")
        (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
        install(directory, wheel, *others)
        return directory

    return make


@pytest.fixture(scope="session")
def environment(
    make_environment: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Makes an environment with other owners of the names of the wheel's folders."""
    directory = tmp_path_factory.mktemp("owners")
    return make_environment(owner(directory, "proto"), owner(directory, "containerd"))


@pytest.fixture
def program(environment: Path, tmp_path: Path) -> Path:
    """Links the wheel's program into an agent's `plugin_dir`."""
    return link(environment, tmp_path)
