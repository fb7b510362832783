"""containerds of other releases than this machine's, each in a folder of the cache.

Releases that a suite of Debian has are fetched and verified by apt and unpacked by `dpkg -x`;
nothing is installed. Newer releases are built from the Go module proxy, with a runc of their time
(`tests.support.go_build`). By hand:

    python -m tests.support.daemons.containerd_versions        all, prints their folders
    python -m tests.support.daemons.containerd_versions 1.4    that one

`CONTAINERD_BIN_DIR` names such a folder for the tests: the daemon, its ctr, its shims and its runc.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.debian_archive import own_apt
from tests.support.go_build import Builder, BuildError, Target

CACHE = Path("~/.cache/containerd-driver/containerd").expanduser()
# Which archive has which release: lines of an apt source, without the type.
SUITES = {
    "1.4": ("debian bullseye", "debian-security bullseye-security"),
    "1.6": ("debian bookworm", "debian-security bookworm-security"),
    "1.7": ("debian trixie", "debian-security trixie-security"),
    "2.1": ("debian sid",),
}
_RUNC = "runc-1.5"
# Each target is a module of tools. The C part of runc needs Debian's libseccomp-dev and pkg-config.
TARGETS = {
    "containerd-2.3": Target(folder="containerd-2.3"),
    "containerd-2.4": Target(folder="containerd-2.4"),
    _RUNC: Target(folder=_RUNC, tags="seccomp"),
}
BUILDER = Builder(
    modules=Path(__file__).resolve().parents[1] / "go_modules",
    cache=CACHE,
    without_go="install Go 1.26.8 or newer from go.dev",
)
BUILT = tuple(name.partition("-")[2] for name in TARGETS if name != _RUNC)
VERSIONS = (*SUITES, *BUILT)
_TIMEOUT_S = 600


class FetchError(Exception):
    """A containerd cannot be had; the text has the reason."""


def bin_dir() -> Path | None:
    """Returns the folder of the containerd under test, or None for the containerd on PATH."""
    given = os.environ.get("CONTAINERD_BIN_DIR", "")
    return Path(given) if given else None


def program(name: str, folder: Path | None) -> str | None:
    """Finds `containerd`, `ctr` or `runc` in the folder, then on PATH."""
    return shutil.which(name, path=f"{folder}:{os.environ['PATH']}" if folder else None)


def fetch(version: str) -> Path:
    """Returns the folder with the programs of a release, from the cache, from Debian or built.

    Raises:
        FetchError: apt or dpkg failed, the suite has another release by now, or the build failed.
    """
    if version in BUILT:
        return _build(version)
    folder = CACHE / version
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as work:
                _make(version, Path(work)).rename(folder)
    return folder


def _build(version: str) -> Path:
    name = f"containerd-{version}"
    try:
        runc = BUILDER.build(_RUNC, TARGETS[_RUNC]) / "runc"
        folder = BUILDER.build(name, TARGETS[name])
    except BuildError as error:
        raise FetchError(str(error)) from error
    beside = folder / "runc"
    if not (beside.exists() and beside.samefile(runc)):
        beside.unlink(missing_ok=True)
        beside.hardlink_to(runc)
    return folder


def _make(version: str, work: Path) -> Path:
    apt = own_apt(work, SUITES[version])
    _run([*apt, "update"], work)
    _run([*apt, "download", "containerd", "runc"], work)
    for archive in work.glob("*.deb"):
        _run(["dpkg", "-x", str(archive), str(work / archive.name.partition("_")[0])], work)
    folder = work / "bin"
    (work / "containerd" / "usr" / "bin").rename(folder)
    said = _run([str(folder / "containerd"), "--version"], work)
    if f" {version}." not in said:
        raise FetchError(f"{' and '.join(SUITES[version])} has no containerd {version}: {said}")
    runc = work / "runc" / "usr" / "sbin" / "runc"
    # A suite newer than this machine has a runc for a newer C library; then it is this machine's.
    if subprocess.run([runc, "--version"], check=False, capture_output=True).returncode == 0:
        runc.rename(folder / "runc")
    return folder


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_S,
    )
    if done.returncode:
        raise FetchError(f"{' '.join(command)}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def main(arguments: list[str]) -> int:
    """Fetches or builds the named releases, or all."""
    for version in arguments or VERSIONS:
        if version not in VERSIONS:
            sys.stderr.write(f"no containerd {version!r}; there are: {', '.join(VERSIONS)}\n")
            return 2
        try:
            sys.stdout.write(f"{version}: {fetch(version)}\n")
        except FetchError as error:
            sys.stderr.write(f"{version}: {error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
