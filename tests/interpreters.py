"""`./dev python 3.13` and `./dev python 3.14`: a Python that this machine does not have.

Debian's suites have one Python each. apt fetches and verifies the packages of the interpreter with
its C library; nothing is installed. The interpreter then names its own loader and libraries, so
child processes keep the libraries of the machine. By hand:

    python -m tests.interpreters 3.14       prints the path of the interpreter
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.support.debian_archive import own_apt

CACHE = Path("~/.cache/containerd-driver/python").expanduser()
SUITES = {"3.13": "debian trixie", "3.14": "debian sid"}
# grpcio's wheel needs the C++ library of the machine, or of the suite.
_PACKAGES = ("python{0}-minimal", "libpython{0}-stdlib", "libstdc++6")
_LIBRARIES = f"usr/lib/{sys.implementation._multiarch}"
_TIMEOUT_S = 300


def fetch(version: str) -> Path:
    """Returns the path of an interpreter, from the cache or from Debian."""
    folder = CACHE / version
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as work:
                _make(version, Path(work), folder).rename(folder)
    return folder / "usr" / "bin" / f"python{version}"


def _make(version: str, work: Path, place: Path) -> Path:
    """Lays the interpreter into a tree that will be moved to `place`, and returns the tree."""
    apt = own_apt(work, [SUITES[version]])
    _run([*apt, "update"])
    packages = [name.format(version) for name in _PACKAGES]
    _run([*apt, "install", "--download-only", "--no-install-recommends", "--yes", *packages])
    tree = work / "tree"
    for archive in (work / "cache" / "archives").glob("*.deb"):
        _run(["dpkg-deb", "-x", archive, tree])
    (loader,) = (tree / _LIBRARIES).glob("ld-linux*")
    libraries = place / _LIBRARIES
    options: list[str | Path] = ["--set-interpreter", libraries / loader.name]
    options += ["--force-rpath", "--set-rpath", libraries]
    _run(["patchelf", *options, tree / "usr" / "bin" / f"python{version}"])
    return tree


def _run(command: Sequence[str | Path]) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_S,
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {done.stderr.strip()[-2000:]}")


def main(words: list[str]) -> int:
    """Prints the path of the named interpreter."""
    if len(words) != 1 or words[0] not in SUITES:
        sys.stderr.write(
            f"no Python {' '.join(words)!r} in Debian; there are: {', '.join(SUITES)}\n"
        )
        return 2
    sys.stdout.write(f"{fetch(words[0])}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
