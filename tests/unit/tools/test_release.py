"""`./dev release`: its checks, names, checksums and bills of materials."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proto.release import RELEASE
from tests.release import sbom
from tests.release.artefacts import Build, ReleaseError, builds, run, write_checksums
from tests.release.checks import problems

ROOT = Path(__file__).resolve().parents[3]
READ_BY_CHECKS = (
    "pyproject.toml",
    "CHANGES.md",
    "packaging/debian/changelog",
    "packaging/debian/system/containerd-driver.1",
    "docs/compatibility.md",
    "docs/performance.md",
)


def git(root: Path, *words: str) -> None:
    settings = ("-c", "user.name=tests", "-c", "user.email=tests@example.com")
    subprocess.run(["git", *settings, *words], cwd=root, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Makes a committed checkout of RELEASE without an obstacle."""
    for name in READ_BY_CHECKS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "CHANGES.md").write_text(f"# Changes\n\n## {RELEASE}\n")
    for page in ("docs/compatibility.md", "docs/performance.md"):
        (tmp_path / page).write_text(f"Measured with release {RELEASE}.\n")
    vectors = tmp_path / "tests" / "vectors" / RELEASE
    vectors.mkdir(parents=True)
    (vectors / "frames.json").write_text("{}")
    (vectors / "disk.json").write_text("{}")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "release")
    return tmp_path


def test_a_checkout_with_everything_in_place_is_ready(checkout: Path) -> None:
    assert problems(checkout, RELEASE) == []
    git(checkout, "tag", f"v{RELEASE}")
    assert problems(checkout, RELEASE) == []


def test_all_obstacles_are_named_at_once(checkout: Path) -> None:
    version = "99.0.1"
    git(checkout, "tag", f"v{version}")
    (checkout / "CHANGES.md").write_text(f"## {version} (unreleased)\n")
    git(checkout, "commit", "-q", "-a", "-m", "next")
    (checkout / "docs" / "performance.md").write_text("Measured with release 99.0.11.\n")
    assert [
        problem.partition(":")[0].partition(",")[0] for problem in problems(checkout, version)
    ] == [
        f"proto/release.py has the number {RELEASE}",
        f"pyproject.toml has the number {RELEASE}",
        f"packaging/debian/system/containerd-driver.1 has the number {RELEASE}",
        f"packaging/debian/changelog has the number {RELEASE}",
        f"CHANGES.md begins with '{version} (unreleased)'",
        f"tests/vectors/{version} has no recorded frames",
        f"docs/compatibility.md does not name {version}",
        f"docs/performance.md does not name {version}",
        "1 files are not committed",
        f"the tag v{version} is on another commit",
    ]


def test_every_kind_of_installation_is_built_for_both_architectures() -> None:
    names = [name for build in builds("1.2.3") for name in build.names]
    assert {Path(name).suffix for name in names} >= {".deb", ".whl", ".gz"}
    assert [name for name in names if "linux" in name] == [
        "containerd-driver_1.2.3_linux_amd64.tar.gz",
        "containerd-driver_1.2.3_linux_arm64.tar.gz",
    ]


def dev(root: Path, text: str) -> None:
    (root / "dev").write_text(f"#!/bin/sh\n{text}\n")
    (root / "dev").chmod(0o755)
    (root / "dist").mkdir()


def test_a_build_returns_new_files_only(tmp_path: Path) -> None:
    dev(tmp_path, 'echo new >"dist/$1.deb"')
    (tmp_path / "dist" / "one.deb").write_text("old")
    [path] = run(tmp_path, Build(("one",), ("one.deb",)))
    assert path.read_text() == "new\n"
    (tmp_path / "dist" / "two").write_text("old")
    with pytest.raises(ReleaseError, match=r"\./dev one has not written .*/dist/two: correct"):
        run(tmp_path, Build(("one",), ("two",)))


def test_a_failed_build_ends_the_release(tmp_path: Path) -> None:
    dev(tmp_path, "exit 3")
    with pytest.raises(ReleaseError, match=r"\./dev bundle arm64 failed: see its messages above"):
        run(tmp_path, Build(("bundle", "arm64"), ()))


def test_sha256sum_accepts_the_checksums(tmp_path: Path) -> None:
    paths = [tmp_path / "b", tmp_path / "a"]
    for path in paths:
        path.write_text(path.name)
    sums = write_checksums(paths, tmp_path)
    command = ["sha256sum", "--check", "--strict", sums.name]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout == "a: OK\nb: OK\n"


def test_requirements_are_read_from_both_packages() -> None:
    python = sbom.python_requirements((ROOT / "pyproject.toml").read_text())
    debian = sbom.debian_requirements((ROOT / "packaging/debian/control").read_text())
    assert sbom.Part(kind="pypi", name="pykka", requirement=">=3.1.1") in python
    assert sbom.Part(kind="deb", name="python3-pykka", requirement=">= 3.1.1") in debian
    assert sbom.Part(kind="deb", name="containerd") in debian
    assert {f"python3-{part.name}" for part in python} <= {part.name for part in debian}


def test_an_archive_has_the_parts_of_its_architecture() -> None:
    listing = f"""# comment
libc6 2.36-9 amd64 {"a" * 64}
libc6 2.36-9 arm64 {"b" * 64}
python-hcl2 8.1.4 any {"c" * 64}
"""
    parts = sbom.bundle_parts(listing, "arm64")
    assert [(part.kind, part.name, part.architecture, part.sha256) for part in parts] == [
        ("deb", "libc6", "arm64", "b" * 64),
        ("pypi", "python-hcl2", None, "c" * 64),
    ]


def test_each_file_to_install_has_a_bill_of_materials(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "packaging/debian/control"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "packaging/bundle").mkdir()
    (tmp_path / "packaging/bundle/parts").write_text(f"libc6 2.36-9 amd64 {'a' * 64}\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "release")
    files = [tmp_path / name for build in builds("1.2.3") for name in build.names]
    for file in files:
        file.write_text(file.name)
    written = [path.name for path in sbom.write(tmp_path, "1.2.3", files)]
    assert written == [
        "nomad-driver-containerd_1.2.3_all.deb.cdx.json",
        "containerd_driver-1.2.3-py3-none-any.whl.cdx.json",
        "containerd-driver_1.2.3_linux_amd64.tar.gz.cdx.json",
        "containerd-driver_1.2.3_linux_arm64.tar.gz.cdx.json",
    ]


def test_a_bill_of_materials_is_valid_and_the_same_each_time() -> None:
    part = sbom.Part(
        kind="deb", name="libc6", version="2.36-9", architecture="arm64", sha256="a" * 64
    )
    made = datetime(2026, 12, 1, tzinfo=UTC)
    texts = {sbom.document("x.tar.gz", "b" * 64, [part], "1.2.3", made) for _ in range(2)}
    [text] = texts
    bill = json.loads(text)
    [component] = bill["components"]
    assert component["purl"] == "pkg:deb/debian/libc6@2.36-9?arch=arm64"
    assert component["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert bill["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": "b" * 64}]
    assert bill["metadata"]["timestamp"] == "2026-12-01T00:00:00+00:00"
    assert {"ref": "x.tar.gz", "dependsOn": [component["bom-ref"]]} in bill["dependencies"]
