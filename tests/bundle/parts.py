"""The parts of the archive that others build: Debian's packages and one wheel, pinned by SHA-256.

`packaging/bundle/parts` has the pins, one part a line. apt checks the signatures of Debian's lists
when the pins are renewed and again at each download; the pins make the same commit the same bytes.
A cache keeps the parts, because Debian's archive drops a version after the next.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.debian_archive import own_apt

ROOT = Path(__file__).resolve().parents[2]
PINS = ROOT / "packaging" / "bundle" / "parts"
CACHE = Path("~/.cache/containerd-driver/bundle").expanduser()
ARCHITECTURES = ("amd64", "arm64")
ANY = "any"
SUITES = ("debian bookworm", "debian-security bookworm-security")
PACKAGES = (
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib"),
    *("libc6", "libgcc-s1", "libstdc++6", "gcc-12-base", "libssl3", "zlib1g", "libffi8"),
    *("libexpat1", "libbz2-1.0", "liblzma5", "libuuid1"),
    *("python3-grpcio", "libgrpc29", "libabsl20220623", "libc-ares2", "libre2-9"),
    *("python3-protobuf", "libprotobuf32", "python3-msgpack", "python3-psutil", "python3-pykka"),
    *("python3-pyroute2", "python3-sdnotify", "python3-urllib3", "python3-six"),
    *("python3-lark", "python3-regex", "python3-rich", "python3-yaml", "libyaml-0-2"),
    "base-files",  # the licences that the packages' copyright files name
)
WHEELS = ("python-hcl2",)
_PROGRAM_S = 600
_HEAD = """\
# The parts of the archive of ./dev bundle: package, version, architecture, SHA-256.
# ./dev bundle --renew writes this file: Debian 12 with its security updates, and PyPI.
"""


class BundleError(Exception):
    """The archive cannot be built; the text has the reason and the remedy."""


@dataclass(frozen=True)
class Part:
    """One pinned package. `architecture` is ANY for a wheel."""

    name: str
    version: str
    architecture: str
    sha256: str

    @property
    def file(self) -> Path:
        """Place in the cache."""
        suffix = "whl" if self.architecture == ANY else "deb"
        version = self.version.replace(":", "%3a")
        return CACHE / f"{self.name}_{version}_{self.architecture}_{self.sha256[:16]}.{suffix}"

    def __str__(self) -> str:
        return f"{self.name} {self.version} {self.architecture} {self.sha256}"


def pinned(architecture: str) -> list[Part]:
    """Returns the parts of an architecture's archive."""
    lines = [line.split() for line in PINS.read_text().splitlines() if not line.startswith("#")]
    parts = [Part(*words) for words in lines]
    return [part for part in parts if part.architecture in {architecture, ANY}]


def fetch(parts: Iterable[Part]) -> None:
    """Puts the parts into the cache and compares each with its pin.

    Raises:
        BundleError: a version is gone from the archive, or a file differs from its pin.
    """
    missing = [part for part in parts if not part.file.is_file()]
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        for architecture in ARCHITECTURES:
            wanted = [part for part in missing if part.architecture == architecture]
            if wanted:
                words = [f"{part.name}={part.version}" for part in wanted]
                _keep(wanted, _from_debian(Path(name) / architecture, architecture, words))
        wheels = [part for part in missing if part.architecture == ANY]
        if wheels:
            words = [f"{part.name}=={part.version}" for part in wheels]
            _keep(wheels, _from_pypi(Path(name) / ANY, words))
    for part in parts:
        if _sha256(part.file) != part.sha256:
            raise BundleError(f"{part.file} differs from its pin in {PINS}: remove the file")


def renew() -> None:
    """Writes pins of the newest versions, with all parts in the cache."""
    found: list[Part] = []
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        for architecture in ARCHITECTURES:
            folder = _from_debian(Path(name) / architecture, architecture, PACKAGES)
            for file in sorted(folder.glob("*.deb")):
                package, version, _ = file.stem.split("_")
                version = version.replace("%3a", ":")
                found.append(Part(package, version, architecture, _sha256(file)))
                shutil.move(file, found[-1].file)
        for file in sorted(_from_pypi(Path(name) / ANY, WHEELS).glob("*.whl")):
            package, version, *_ = file.name.split("-")
            found.append(Part(package.replace("_", "-"), version, ANY, _sha256(file)))
            shutil.move(file, found[-1].file)
    PINS.write_text(_HEAD + "".join(f"{part}\n" for part in sorted(found, key=str)))


def _from_debian(work: Path, architecture: str, words: Sequence[str]) -> Path:
    """Downloads packages and returns their folder."""
    work.mkdir()
    apt = own_apt(work / "apt", SUITES, architecture)
    run([*apt, "update"], work)
    try:
        run([*apt, "download", *words], work)
    except BundleError as error:
        raise BundleError(
            f"{error}\nDebian's archive drops a version after the next one."
            " `./dev bundle --renew` pins the present versions: commit packaging/bundle/parts"
        ) from error
    return work


def _from_pypi(work: Path, words: Sequence[str]) -> Path:
    """Downloads wheels for any machine and returns their folder."""
    work.mkdir()
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "download"]
    options = ["--no-deps", "--only-binary=:all:", "--platform=any", "--python-version=3.11"]
    run([*pip, *options, *words], work)
    return work


def _keep(parts: Sequence[Part], folder: Path) -> None:
    """Moves downloaded files to their places in the cache.

    Raises:
        BundleError: a file has another SHA-256 than the pin.
    """
    files = {_sha256(file): file for file in [*folder.glob("*.deb"), *folder.glob("*.whl")]}
    for part in parts:
        if part.sha256 not in files:
            raise BundleError(
                f"{part.name} {part.version} for {part.architecture} differs from its pin in"
                f" {PINS}: find out why before `./dev bundle --renew`"
            )
        shutil.move(files[part.sha256], part.file)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def run(command: Sequence[str | Path], folder: Path, **environment: str) -> str:
    """Runs a program and returns its output.

    Raises:
        BundleError: the program failed; the text has the end of its messages.
    """
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "LC_ALL": "C.UTF-8", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_PROGRAM_S,
    )
    if done.returncode:
        name = " ".join(map(str, command))
        raise BundleError(f"{name:.300}: {done.stderr.strip()[-2000:]}")
    return done.stdout
