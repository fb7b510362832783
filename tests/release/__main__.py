"""`./dev release VERSION`: checks that everything is in place, and builds all files of a release.

The files go into dist/release: the Debian package and its source, the wheel and its source, the
self-contained archives, an SBOM for each, and SHA256SUMS. Nothing is built after a failed check.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.release import sbom
from tests.release.artefacts import ReleaseError, builds, run, write_checksums
from tests.release.checks import problems

_ROOT = Path(__file__).resolve().parents[2]


def main(words: Sequence[str]) -> int:
    """Checks and builds a release. Returns the exit code: 1 after a failed check or build."""
    parser = argparse.ArgumentParser(
        prog="./dev release", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("version", metavar="VERSION", help="number of the release, without a v")
    parser.add_argument("--check", action="store_true", help="only check, build nothing")
    given = parser.parse_args(words)
    found = problems(_ROOT, given.version)
    for problem in found:
        _say(f"not ready: {problem}")
    if found or given.check:
        _say("" if found else f"{given.version} is ready to be built")
        return 1 if found else 0
    try:
        return _build(given.version)
    except ReleaseError as error:
        _say(str(error))
        return 1


def _build(version: str) -> int:
    directory = _ROOT / "dist" / "release"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    paths = []
    for build in builds(version):
        _say(f"./dev {' '.join(build.command)}")
        paths += [Path(shutil.copy2(path, directory)) for path in run(_ROOT, build)]
    paths += sbom.write(_ROOT, version, paths)
    write_checksums(paths, directory)
    for path in sorted(directory.iterdir()):
        _say(f"{path.stat().st_size / 1e6:9.2f} MB  {path.relative_to(_ROOT)}")
    _say(f"Now: git tag v{version}, push the tag, publish the files of dist/release")
    return 0


def _say(line: str) -> None:
    if line:
        sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
