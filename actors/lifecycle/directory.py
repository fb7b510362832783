"""The state directory of one task, with a note that names the directory's owner.

The worker keeps the control socket, the lock and the exit record of the task in the directory. A
sweep reads the note when no other object of the task is left that names an owner.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from actors.model.ownership import OwnerLabels
from proto.exhaustion import advice, exhausted
from workers import private_directory, protocol

if TYPE_CHECKING:
    from actors.model.node import Node

STDIN = "stdin.fifo"
_NOTE = "owner"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
_MAX_BYTES = 65536


def create_directory(
    node: Node, directory: Path, owner: OwnerLabels, *, stdin: bool = False
) -> None:
    """Creates the state directory of a start, and removes an earlier task's exit record. Blocks.

    Args:
        node: the containerd and namespace of the task are written into the note.
        directory: the state directory; may exist.
        owner: the labels that the start's objects in containerd have too.
        stdin: True creates the FIFO of an input that no process writes to. The shim waits for a
            writer for ever, so the task's stdin has neither input nor end.

    Raises:
        DriverError: the directory cannot be created. Code DENIED; another user can change a
            directory on the way.
    """
    try:
        _create(node, directory, owner)
        if stdin:
            (directory / STDIN).unlink(missing_ok=True)
            os.mkfifo(directory / STDIN, 0o600)
    except OSError as error:
        raise exhausted(f"cannot create the task's state directory {directory}", error) from error


def _create(node: Node, directory: Path, owner: OwnerLabels) -> None:
    os.close(private_directory.opened(str(directory), make=True))
    with contextlib.suppress(FileNotFoundError):
        (directory / protocol.EXIT_RECORD).unlink()
    note = json.dumps({"owner": owner.owner, "maker": owner.maker, **_containerd(node)}).encode()
    file = os.open(directory / _NOTE, _NEW, 0o600)
    try:
        os.write(file, note)
    finally:
        os.close(file)


def read_owner(node: Node, directory: Path) -> OwnerLabels | None:
    """Returns the owner that a directory's note names; empty labels where the note is missing.

    None where the directory belongs to another containerd or another namespace, whose containers
    are unknown here, and where a lack of descriptors prevents the read.
    """
    try:
        file = os.open(directory / _NOTE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        return None if advice(error) else OwnerLabels()
    try:
        note = json.loads(os.read(file, _MAX_BYTES))
        owner, maker = str(note["owner"]), str(note["maker"])
        containerd = {name: note[name] for name in _containerd(node)}
    except (OSError, ValueError, TypeError, KeyError):
        return OwnerLabels()
    finally:
        os.close(file)
    if containerd != _containerd(node):
        return None
    return OwnerLabels(owner=owner, maker=maker, state_dir=str(node.state_dir))


def _containerd(node: Node) -> dict[str, str]:
    return {"address": node.containerd.address, "namespace": node.namespace}
