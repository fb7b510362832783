"""Compiles the modules of a tree and writes the tree as a .tar.gz: the same tree, the same bytes.

The archive's own interpreter runs this program, so neither Python nor zlib of the building machine
shows in the bytes. The program imports the standard library alone.

    pack.py TREE ARCHIVE SECONDS    SECONDS: the time of all files, since 1970
"""

from __future__ import annotations

import gzip
import py_compile
import sys
import tarfile
import zlib
from pathlib import Path


def compile_all(tree: Path) -> None:
    """Compiles each module; the compiled file is used whatever the time of the source."""
    for source in sorted(tree.rglob("*.py")):
        py_compile.compile(
            str(source),
            dfile=str(source.relative_to(tree)),
            doraise=True,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )


def pack(tree: Path, archive: Path, seconds: int) -> None:
    """Writes the archive. All files belong to root."""

    def owned(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mtime = seconds
        executable = member.isdir() or member.issym() or member.mode & 0o100
        member.mode = 0o755 if executable else 0o644
        return member

    with (
        archive.open("wb") as file,
        gzip.GzipFile("", "wb", zlib.Z_BEST_COMPRESSION, file, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        # Sorted also within each folder.
        tar.add(tree, arcname=tree.name, filter=owned)


if __name__ == "__main__":
    compile_all(Path(sys.argv[1]))
    pack(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
