"""`volume` blocks of a group and `volume_mount` blocks of its tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plugin.host.job.block_reader import BlockReader, labelled
from plugin.host.job.keys import VOLUME, VOLUME_MOUNT
from proto.values import dataclass

_PROPAGATION = ("private", "host-to-task", "bidirectional")


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A host volume of a group; `per_alloc` adds `[index]` to the name of the source."""

    source: str
    read_only: bool = False
    per_alloc: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeMount:
    """Mount of a group's volume into a task: the dev host's form of a mount."""

    volume: str
    destination: str
    read_only: bool = False
    propagation_mode: str = "private"
    selinux_label: str = ""


def read_volumes(reader: BlockReader, where: str, blocks: Any) -> dict[str, Volume]:
    """Reads the volumes of a group, by name in the group.

    Args:
        reader: collects the problems.
        where: place of the group in problems.
        blocks: the `volume` blocks as `[{name: body}]`.
    """
    volumes: dict[str, Volume] = {}
    for label, body in labelled(blocks):
        here = f'{where}: volume "{label}"'
        reader.sift(VOLUME, here, body)
        kind = str(body.get("type") or "host")
        if kind != "host":
            reader.problems.append(f'{here}: type "{kind}" needs a Nomad agent; use "host"')
        if not body.get("source"):
            reader.problems.append(f"{here}: source is missing")
        volumes[label] = Volume(
            source=str(body.get("source") or ""),
            read_only=reader.flag(here, body, "read_only"),
            per_alloc=reader.flag(here, body, "per_alloc"),
        )
    return volumes


def read_mounts(
    reader: BlockReader, where: str, blocks: Any, volumes: Mapping[str, Volume]
) -> tuple[VolumeMount, ...]:
    """Reads the mounts of a task.

    Args:
        reader: collects the problems.
        where: place of the task in problems.
        blocks: the bodies of the `volume_mount` blocks, a list; None for no block.
        volumes: the volumes of the group, by name; each mount must name one of these.
    """
    mounts: list[VolumeMount] = []
    for body in blocks if isinstance(blocks, list) else []:
        if not isinstance(body, dict):
            reader.problems.append(f"{where}: volume_mount is a block, write volume_mount {{ … }}")
            continue
        name = str(body.get("volume") or "")
        here = f'{where}: volume_mount "{name}"'
        reader.sift(VOLUME_MOUNT, here, body)
        if name not in volumes:
            known = ", ".join(volumes) or "none"
            reader.problems.append(f"{here}: the group has no such volume; known: {known}")
        destination = str(body.get("destination") or "")
        if not destination:
            reader.problems.append(f"{here}: destination is missing")
        propagation = str(body.get("propagation_mode") or "private")
        if propagation not in _PROPAGATION:
            reader.problems.append(
                f"{here}: propagation_mode {propagation!r} is none of {', '.join(_PROPAGATION)}"
            )
        mounts.append(
            VolumeMount(
                volume=name,
                destination=destination,
                read_only=reader.flag(here, body, "read_only"),
                propagation_mode=propagation,
                selinux_label=str(body.get("selinux_label") or ""),
            )
        )
    return tuple(mounts)
