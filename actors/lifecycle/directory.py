"""The state directory of one task: made by its start, with a note that says whose it is.

The worker keeps its socket, its lock and the exit record in it. The note is for a time when nothing
else of the task is left that would tell.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from actors.model.ownership import Mark
from proto.exhaustion import exhausted, remedy
from workers import private_directory, protocol

if TYPE_CHECKING:
    from actors.model.node import Node

_NOTE = "owner"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
_MAX_BYTES = 65536


def fresh(node: Node, directory: Path, owner: str) -> None:
    """The directory of a start, without an earlier task's exit record. Blocks.

    Raises:
        DriverError: it cannot be made. Code DENIED; another user can change the place.
    """
    try:
        _make(node, directory, owner)
    except OSError as error:
        raise exhausted(f"the task's state directory {directory} cannot be made", error) from error


def _make(node: Node, directory: Path, owner: str) -> None:
    os.close(private_directory.opened(str(directory), make=True))
    with contextlib.suppress(FileNotFoundError):
        (directory / protocol.EXIT_RECORD).unlink()
    note = json.dumps({"owner": owner, "maker": node.maker, **_place(node)}).encode()
    file = os.open(directory / _NOTE, _NEW, 0o600)
    try:
        os.write(file, note)
    finally:
        os.close(file)


def read_mark(node: Node, directory: Path) -> Mark | None:
    """Whose a directory is; an empty mark where it does not say.

    None where it is of another containerd or another namespace, whose containers are unknown here,
    and where it cannot be read for want of descriptors.
    """
    try:
        file = os.open(directory / _NOTE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        return None if remedy(error) else Mark()
    try:
        note = json.loads(os.read(file, _MAX_BYTES))
        owner, maker = str(note["owner"]), str(note["maker"])
        place = {name: note[name] for name in _place(node)}
    except (OSError, ValueError, TypeError, KeyError):
        return Mark()
    finally:
        os.close(file)
    if place != _place(node):
        return None
    return Mark(owner=owner, maker=maker, state_dir=str(node.state_dir))


def _place(node: Node) -> dict[str, str]:
    return {"address": node.containerd.address, "namespace": node.namespace}
