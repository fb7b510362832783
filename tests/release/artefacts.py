"""The files of a release: names, commands that build the files, checksums."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "nomad-driver-containerd"
ARCHITECTURES = ("amd64", "arm64")
CHECKSUMS = "SHA256SUMS"
_CHUNK_BYTES = 1 << 20


class ReleaseError(Exception):
    """Failure to build a release; the text has the cause and the remedy."""


@dataclass(frozen=True, slots=True)
class Build:
    """A command of ./dev, and the names of the files that the command writes into dist/."""

    command: tuple[str, ...]
    names: tuple[str, ...]


def builds(version: str) -> list[Build]:
    """Returns all builds of a release, in the order of their run."""
    bundles = [
        Build(("bundle", architecture), (bundle_name(version, architecture),))
        for architecture in ARCHITECTURES
    ]
    debian = (
        f"{PACKAGE}_{version}_all.deb",
        f"{PACKAGE}_{version}.dsc",
        f"{PACKAGE}_{version}.tar.xz",
    )
    python = (
        f"containerd_driver-{version}-py3-none-any.whl",
        f"containerd_driver-{version}.tar.gz",
    )
    return [Build(("deb",), debian), Build(("wheel",), python), *bundles]


def bundle_name(version: str, architecture: str) -> str:
    """Returns the name of the self-contained archive for an architecture, in Debian's words."""
    return f"containerd-driver_{version}_linux_{architecture}.tar.gz"


def run(root: Path, build: Build) -> list[Path]:
    """Runs a build and returns the paths of its files.

    Raises:
        ReleaseError: the command failed, or a file is missing afterwards.
    """
    paths = [root / "dist" / name for name in build.names]
    for path in paths:
        path.unlink(missing_ok=True)
    command = ["./dev", *build.command]
    if subprocess.run(command, cwd=root, check=False).returncode:
        raise ReleaseError(f"{' '.join(command)} failed: see its messages above")
    for path in paths:
        if not path.is_file():
            raise ReleaseError(f"{' '.join(command)} has not written {path}: correct the command")
    return paths


def write_checksums(paths: list[Path], directory: Path) -> Path:
    """Writes the SHA-256 sums of the files in the form of sha256sum, and returns the new file."""
    lines = [f"{sha256_of(path)}  {path.name}\n" for path in sorted(paths)]
    sums = directory / CHECKSUMS
    sums.write_text("".join(lines))
    return sums


def sha256_of(path: Path) -> str:
    """Returns the hex digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
