"""containerds of other releases than this machine's, from the suites of Debian that have them.

apt fetches and verifies them, `dpkg -x` unpacks them into a cache folder; nothing is installed. By
hand:

    python -m tests.support.containerd_versions        all, prints their folders
    python -m tests.support.containerd_versions 1.4    that one

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

CACHE = Path("~/.cache/containerd-driver/containerd").expanduser()
_MIRROR = "http://deb.debian.org"
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Which archive has which release: lines of an apt source, without the type.
SUITES = {
    "1.4": ("debian bullseye", "debian-security bullseye-security"),
    "1.6": ("debian bookworm", "debian-security bookworm-security"),
    "1.7": ("debian trixie", "debian-security trixie-security"),
    "2.1": ("debian sid",),
}
_TIMEOUT_S = 600


class FetchError(Exception):
    """A containerd cannot be fetched; the text has the reason."""


def bin_dir() -> Path | None:
    """Returns the folder of the containerd under test, or None for the containerd on PATH."""
    given = os.environ.get("CONTAINERD_BIN_DIR", "")
    return Path(given) if given else None


def program(name: str, folder: Path | None) -> str | None:
    """Finds `containerd`, `ctr` or `runc` in the folder, then on PATH."""
    return shutil.which(name, path=f"{folder}:{os.environ['PATH']}" if folder else None)


def fetch(version: str) -> Path:
    """Returns the folder with the programs of a release, from the cache or from Debian's mirror.

    Raises:
        FetchError: apt or dpkg failed, or the suite has another release by now.
    """
    folder = CACHE / version
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as work:
                _make(version, Path(work)).rename(folder)
    return folder


def _make(version: str, work: Path) -> Path:
    apt = _own_apt(work, SUITES[version])
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


def _own_apt(work: Path, suites: tuple[str, ...]) -> list[str]:
    """Returns an apt-get command with its own lists and sources: the machine's stay unchanged."""
    (work / "state" / "lists" / "partial").mkdir(parents=True)
    (work / "cache" / "archives" / "partial").mkdir(parents=True)
    sources = work / "sources.list"
    lines = (suite.split() for suite in suites)
    sources.write_text(
        "".join(f"deb [signed-by={_KEYS}] {_MIRROR}/{base} {name} main\n" for base, name in lines)
    )
    options = {
        "Dir::State": work / "state",
        "Dir::State::status": os.devnull,
        "Dir::Cache": work / "cache",
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "-",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",
    }
    return [
        "apt-get",
        "-q",
        *(w for key, value in options.items() for w in ("-o", f"{key}={value}")),
    ]


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
    """Fetches the named releases, or all."""
    for version in arguments or list(SUITES):
        if version not in SUITES:
            sys.stderr.write(f"no containerd {version!r}; there are: {', '.join(SUITES)}\n")
            return 2
        try:
            sys.stdout.write(f"{version}: {fetch(version)}\n")
        except FetchError as error:
            sys.stderr.write(f"{version}: {error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
