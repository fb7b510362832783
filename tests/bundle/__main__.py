"""`./dev bundle`: builds dist/containerd-driver_RELEASE_linux_ARCHITECTURE.tar.gz.

The archive has the driver of the last commit and everything below it: Debian 12's Python with its
C library, loader and packages. The archive runs on any Linux of its architecture.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from proto.release import RELEASE
from tests.bundle import parts, python_tree
from tests.bundle.parts import ARCHITECTURES, ROOT, BundleError, run

DIST = ROOT / "dist"
SOURCES = ("actors", "containerd", "plugin", "proto", "workers")
PAGES = ("LICENSE", "README.md", "ARCHITECTURE.md", "CHANGES.md", "docs", "example")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_DEB = "packaging/debian"
_UNIT = f"{_DEB}/nomad-driver-containerd.nomad-driver-containerd-launcher"


def name(architecture: str) -> str:
    """Returns the name of an archive without its suffix."""
    return f"containerd-driver_{RELEASE}_linux_{architecture}"


def build(architecture: str, dist: Path = DIST) -> Path:
    """Builds an archive of the last commit and returns its path.

    Raises:
        BundleError: a part is not to be had, or a program failed.
    """
    own = _MACHINES.get(platform.machine(), "")
    if own not in ARCHITECTURES:
        raise BundleError(f"a {platform.machine()} cannot build the archive: no parts are pinned")
    pins = parts.pinned(architecture)
    parts.fetch([*pins, *parts.pinned(own)])
    dist.mkdir(exist_ok=True)
    archive = dist / f"{name(architecture)}.tar.gz"
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        tree = _laid(work / architecture, architecture)
        # The interpreter of this machine's archive compiles for both architectures.
        builder = tree if own == architecture else _laid(work / own, own)
        _driver(tree, work / "source")
        seconds = run(["git", "log", "-1", "--format=%ct"], ROOT).strip()
        python, program = builder / "python/bin/python3", ROOT / "tests/bundle/pack.py"
        run([python, "-s", program, tree, archive, seconds], work, PYTHONHASHSEED="0")
    _check(dist)
    return archive


def _laid(work: Path, architecture: str) -> Path:
    tree = work / name(architecture)
    tree.mkdir(parents=True)
    python_tree.lay(tree, parts.pinned(architecture), work)
    return tree


def _driver(tree: Path, source: Path) -> None:
    """Lays the driver, its pages and its units into the tree, as the last commit has these."""
    source.mkdir()
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", str(source)], input=archive.stdout, check=True)
    driver = tree / "driver"
    for folder in SOURCES:
        ignored = shutil.ignore_patterns("*.pyi", "*.proto")
        shutil.copytree(source / folder, driver / folder, ignore=ignored)
    # `pgrep -f plugins/containerd-driver` finds the plugin by this name.
    (driver / "plugins").mkdir()
    (driver / "plugins" / "containerd-driver").symlink_to("../plugin/main.py")
    (tree / "plugins").mkdir()
    shutil.copy(source / "packaging/bundle/containerd-driver", tree / "plugins")
    for page in PAGES:
        copy = shutil.copytree if (source / page).is_dir() else shutil.copy
        copy(source / page, tree / page)
    shutil.copytree(source / _DEB / "example", tree / "example", dirs_exist_ok=True)
    for file in ("install.sh", "INSTALL", "parts"):
        shutil.copy(source / "packaging/bundle" / file, tree)
    _units(tree / "system", source)


def _units(target: Path, source: Path) -> None:
    """Copies the package's units and kernel settings; install.sh puts a path in place of @HOME@."""
    target.mkdir()
    system = source / _DEB / "system"
    files = {
        "nomad-driver-containerd-launcher.service": source / f"{_UNIT}.service",
        "nomad-driver-containerd-launcher.socket": source / f"{_UNIT}.socket",
        "containerd_driver.slice": system / "containerd_driver.slice",
        "modules-load.conf": system / "modules-load.d/nomad-driver-containerd.conf",
        "sysctl.conf": system / "sysctl.d/50-nomad-driver-containerd.conf",
        "containerd-driver.1": system / "containerd-driver.1",
    }
    for file, origin in files.items():
        text = origin.read_text()
        if file.endswith((".service", ".socket", ".slice")):
            text = text.replace("/usr/bin/python3", "@HOME@/python/bin/python3")
            text = text.replace("/usr/share/nomad-driver-containerd/", "@HOME@/driver/")
            text = text.replace("/usr/share/doc/nomad-driver-containerd/", "@HOME@/")
            text = text.replace("man:containerd-driver(1) ", "")
            if re.search(r"/usr/(share|lib)/|/usr/bin/python", text):
                raise BundleError(f"{file} names a place of the package: see tests/bundle")
        (target / file).write_text(text)


def _check(dist: Path) -> None:
    """Writes the checksums of all archives of this release in `dist`."""
    archives = sorted(dist.glob(f"containerd-driver_{RELEASE}_linux_*.tar.gz"))
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in archives]
    (dist / f"containerd-driver_{RELEASE}_linux.sha256").write_text("".join(lines))


def main(words: list[str]) -> int:
    """Builds the named archives, or renews the pins."""
    parser = argparse.ArgumentParser(prog="./dev bundle", description=__doc__)
    parser.add_argument("architecture", nargs="*", help="amd64, arm64; this machine's by default")
    parser.add_argument("--renew", action="store_true", help="pin the newest parts; build nothing")
    options = parser.parse_args(words)
    for architecture in options.architecture:
        if architecture not in ARCHITECTURES:
            parser.error(f"no archive for {architecture!r}; {' and '.join(ARCHITECTURES)} exist")
    try:
        if options.renew:
            parts.renew()
            return 0
        for architecture in options.architecture or [_MACHINES.get(platform.machine(), "amd64")]:
            sys.stdout.write(f"{build(architecture)}\n")
    except (BundleError, OSError, subprocess.SubprocessError) as error:
        sys.stderr.write(f"./dev bundle: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
