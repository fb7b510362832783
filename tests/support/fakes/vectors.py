"""The frames of released versions, recorded by `./dev vectors` from real processes.

`tests/vectors/<release>/frames.json` has, for each pair of processes and each frame between them,
the frame's bytes in hex and their meaning. `disk.json` has the files on disk and the handles in
Nomad's state store. Neither file is ever written again: processes of that release may still run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack

from proto import frames
from proto.frames import Frame

DIRECTORY = Path(__file__).resolve().parents[2] / "vectors"
RELEASES = sorted(path.name for path in DIRECTORY.iterdir())
FRAMES, DISK = "frames.json", "disk.json"


@dataclass(frozen=True, slots=True)
class Vector:
    """A frame or file that a process of a release has written."""

    name: str
    data: bytes
    reads: Any

    def frame(self) -> Frame:
        """Returns the frame in the bytes, as the product reads frames."""
        [frame] = frames.Decoder().feed(self.data)
        return frame

    def record(self) -> Any:
        """Returns the msgpack document in the bytes."""
        return msgpack.unpackb(self.data, raw=False)


def load(release: str, way: str) -> dict[str, Vector]:
    """Returns the frames of one direction, such as "plugin to worker", by their names."""
    ways = json.loads((DIRECTORY / release / FRAMES).read_text())
    return {
        name: Vector(name, bytes.fromhex(one["hex"]), one["reads"])
        for name, one in ways[way].items()
    }


def ways(release: str) -> list[str]:
    """Lists the directions: sender and receiver."""
    return list(json.loads((DIRECTORY / release / FRAMES).read_text()))


def on_disk(release: str) -> dict[str, Vector]:
    """Returns the files and handles that a release leaves, by name."""
    things = json.loads((DIRECTORY / release / DISK).read_text())
    return {
        name: Vector(name, bytes.fromhex(one["hex"]), one["reads"]) for name, one in things.items()
    }
