"""The frames of released versions, kept as `./dev vectors` recorded them from real processes.

`tests/vectors/<release>/frames.json` has, for each pair of processes and each frame that one sent
to the other, its bytes in hex and what they read as. `disk.json` has what lay on disk or in Nomad's
books. Neither is ever written again: processes of that release may still run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack

from proto import frames
from proto.frames import Frame

DIRECTORY = Path(__file__).resolve().parents[1] / "vectors"
RELEASES = sorted(path.name for path in DIRECTORY.iterdir())
FRAMES, DISK = "frames.json", "disk.json"


@dataclass(frozen=True, slots=True)
class Vector:
    """One thing that a process of a release has written."""

    name: str
    data: bytes
    reads: Any

    def frame(self) -> Frame:
        """The frame in its bytes, as the product reads it."""
        [frame] = frames.Decoder().feed(self.data)
        return frame

    def record(self) -> Any:
        """The msgpack in its bytes."""
        return msgpack.unpackb(self.data, raw=False)


def load(release: str, way: str) -> dict[str, Vector]:
    """The frames that went one way, such as "plugin to worker", by their names."""
    ways = json.loads((DIRECTORY / release / FRAMES).read_text())
    return {
        name: Vector(name, bytes.fromhex(one["hex"]), one["reads"])
        for name, one in ways[way].items()
    }


def ways(release: str) -> list[str]:
    """Who writes to whom."""
    return list(json.loads((DIRECTORY / release / FRAMES).read_text()))


def on_disk(release: str) -> dict[str, Vector]:
    """What a release leaves on disk and in Nomad's books, by its name."""
    things = json.loads((DIRECTORY / release / DISK).read_text())
    return {
        name: Vector(name, bytes.fromhex(one["hex"]), one["reads"]) for name, one in things.items()
    }
