"""The archive's own Python: Debian 12's interpreter, loader, libraries and Python packages.

The loader starts the interpreter with the archive's libraries alone, so the machine's C library
plays no part. The option `--library-path` reaches no child process, as LD_LIBRARY_PATH would.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.bundle.parts import ANY, ROOT, BundleError, Part, run

TRIPLETS = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
LOADERS = {"amd64": "ld-linux-x86-64.so.2", "arm64": "ld-linux-aarch64.so.1"}
# Parts of the C library that no file here names. A module of the machine for name look-ups
# (libnss_*) may name these; the machine's own files would belong to another C library.
_LIBRARIES = (
    *("libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1", "libresolv.so.2"),
    *("libanl.so.1", "libnss_compat.so.2", "libgcc_s.so.1"),
)
# sitecustomize.py is a link into the machine's /etc.
_NO_MODULES = """
EXTERNALLY-MANAGED sitecustomize.py config-* test lib2to3 distutils _distutils_system_mod.py
ensurepip idlelib tkinter turtledemo turtle.py venv pydoc_data sqlite3 curses dbm crypt.py
lib-dynload/_test* lib-dynload/_xx* lib-dynload/xx* lib-dynload/_ctypes_test* lib-dynload/_sqlite3*
lib-dynload/_curses* lib-dynload/_dbm* lib-dynload/_crypt* lib-dynload/nis* lib-dynload/readline*
lib-dynload/ossaudiodev*
"""


def lay(tree: Path, parts: Iterable[Part], work: Path) -> None:
    """Lays the interpreter with its libraries and packages into `tree`, and licences beside.

    Args:
        tree: the top of the archive.
        parts: the pinned parts of one architecture, in the cache.
        work: a directory for unpacked packages.

    Raises:
        BundleError: no part has a library that a program names.
    """
    debian, wheels = work / "debian", work / "wheels"
    for part in parts:
        if part.architecture == ANY:
            with zipfile.ZipFile(part.file) as wheel:
                wheel.extractall(wheels)
        else:
            architecture = part.architecture
            run(["dpkg-deb", "-x", part.file, debian], work)
    python = tree / "python"
    _interpreter(python, debian, architecture)
    _modules(python, debian, wheels)
    _libraries(python, debian, architecture)
    _licences(tree / "LICENSES", debian, wheels, parts)


def _interpreter(python: Path, debian: Path, architecture: str) -> None:
    for folder in ("bin", "lib", "loader"):
        (python / folder).mkdir(parents=True)
    shutil.copy(debian / "usr/bin/python3.11", python / "bin")
    shutil.copy(ROOT / "packaging/bundle/python3", python / "bin")
    # The kernel names the process after the loader's file.
    loader = debian / "lib" / TRIPLETS[architecture] / LOADERS[architecture]
    shutil.copy(loader, python / "loader" / "containerd-driver")


def _modules(python: Path, debian: Path, wheels: Path) -> None:
    standard = python / "lib/python3.11"
    shutil.copytree(debian / "usr/lib/python3.11", standard, ignore_dangling_symlinks=True)
    for pattern in _NO_MODULES.split():
        for path in standard.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    packages = python / "lib/python3/dist-packages"
    shutil.copytree(debian / "usr/lib/python3/dist-packages", packages)
    shutil.copytree(wheels, packages, dirs_exist_ok=True)
    for path in [*packages.glob("*/tests"), *packages.glob("*/test")]:
        shutil.rmtree(path)


def _libraries(python: Path, debian: Path, architecture: str) -> None:
    """Copies each library that a program or a library names, until nothing is missing."""
    triplet = TRIPLETS[architecture]
    places = [debian / "lib" / triplet, debian / "usr/lib" / triplet]
    target = python / "lib"
    unread = [python / "bin/python3.11", *target.rglob("*.so")]
    wanted = list(_LIBRARIES)
    while unread or wanted:
        wanted += [name for file in unread for name in _needed(file)]
        unread = []
        # The loader is in its own place.
        present = {file.name for file in target.glob("*.so*")} | set(LOADERS.values())
        for name in set(wanted) - present:
            found = next((place / name for place in places if (place / name).exists()), None)
            if found is None:
                raise BundleError(f"no part has {name}: add its package to tests/bundle/parts.py")
            shutil.copy(found, target / name)
            unread.append(target / name)
        wanted = []


def _needed(file: Path) -> Iterator[str]:
    """Yields the names of the libraries that a program or a library names."""
    for line in run(["readelf", "-d", file], file.parent).splitlines():
        if found := re.search(r"\(NEEDED\).*\[(.+)\]", line):
            yield found[1]


def _licences(target: Path, debian: Path, wheels: Path, parts: Iterable[Part]) -> None:
    target.mkdir()
    for part in parts:
        if part.architecture != ANY:
            text = debian / "usr/share/doc" / part.name / "copyright"
            shutil.copy(text, target / part.name)
    for text in wheels.glob("*.dist-info/**/LICENSE*"):
        shutil.copy(text, target / text.relative_to(wheels).parts[0].partition("-")[0])
    shutil.copytree(debian / "usr/share/common-licenses", target / "common-licenses")
