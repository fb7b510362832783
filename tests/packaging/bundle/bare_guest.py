"""A guest without Python, with the unpacked archive in /srv."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from proto.release import RELEASE
from tests.packaging.local_task import put_image
from tests.support.guests.guest import need_guest, overlay

BARE_SUITES = ("bullseye", "bookworm", "trixie", "sid")
NEWER = f"{RELEASE}.99"
HOME, NEWER_HOME, PREFIX = "/srv/a", "/srv/b", "/opt/nomad-driver-containerd"
IMPORT = """
namespace=nomad; [ ! -e /sys/fs/cgroup/cgroup.controllers ] || namespace=nomad.slice
ctr -n $namespace images import /root/image.tar
"""


def unpack(archive: Path, root: Path) -> None:
    """Unpacks an archive into /srv/a of a guest, and as a newer release into /srv/b."""
    for home in (HOME, NEWER_HOME):
        place = root / home[1:]
        place.mkdir(parents=True)
        words = ["tar", "-xf", str(archive), "-C", str(place), "--strip-components=1"]
        subprocess.run(words, check=True)
    release = root / NEWER_HOME[1:] / "driver/proto/release.py"
    release.write_text(release.read_text().replace(f'"{RELEASE}"', f'"{NEWER}"'))
    for compiled in release.parent.glob("__pycache__/release.*"):
        compiled.unlink()


@contextlib.contextmanager
def bare_root(suite: str, archive: Path) -> Iterator[Path]:
    """Yields the root of a guest without Python, with the archive and an image."""
    need_guest(f"{suite}-bare")
    with overlay(f"{suite}-bare") as root:
        unpack(archive, root)
        put_image(root)
        yield root
