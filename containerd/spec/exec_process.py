"""Builds the OCI process of a command in a running task, from the task's spec. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING

from containerd.spec.build import capability_sets, too_long, too_many
from proto.errors import Code, DriverError
from proto.values import dataclass

if TYPE_CHECKING:
    from containerd.documents import Document
    from containerd.spec.users import ResolvedUser


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command in a running task.

    Attributes:
        words: program and arguments.
        terminal: True for a command with a terminal.
        size: (height, width) of the terminal in characters.
        cwd: working directory; empty for the task's own.
        user: None for the task's own.
        env: variables beside the task's own; these win.
    """

    words: Sequence[str]
    terminal: bool = False
    size: tuple[int, int] | None = None
    cwd: str = ""
    user: ResolvedUser | None = None
    env: Mapping[str, str] = field(default_factory=dict)


def process_for_exec(spec: Document, command: Command) -> Document:
    """Builds the OCI process of a command, with the task's user, env and limits.

    An earlier release or the Go driver may have created the task. With a terminal, TERM is the
    task's own, or else xterm. Another user gets the task's bounding set and the home of the user.

    Raises:
        DriverError: code INVALID; the program's name is longer than the kernel allows, or the
            environment is larger than runc takes in a short time.
    """
    if reason := too_long(command.words[0]):
        raise DriverError(reason, code=Code.INVALID)
    process: Document = dict(spec["process"])
    process["args"] = list(command.words)
    process["terminal"] = command.terminal
    process.pop("consoleSize", None)
    process.setdefault("oomScoreAdj", 0)
    if command.cwd:
        process["cwd"] = command.cwd
    variables = dict(command.env)
    user = command.user
    if user is not None:
        ids: Document = {"uid": user.uid, "gid": user.gid}
        if user.additional_gids:
            ids["additionalGids"] = list(user.additional_gids)
        process["user"] = ids
        variables = {"HOME": user.home or "/", **variables}
    uid = process.get("user", {}).get("uid", 0)
    if uid or user is not None:
        granted = process.get("capabilities", {}).get("bounding", [])
        process["capabilities"] = capability_sets(granted, uid)
    if variables:
        process["env"] = _merged(process.get("env", []), variables)
    if reason := too_many(process.get("env", ())):
        raise DriverError(reason, code=Code.INVALID)
    if command.terminal:
        env = process.get("env", [])
        if not any(entry.startswith("TERM=") for entry in env):
            process["env"] = [*env, "TERM=xterm"]
        if command.size is not None and min(command.size) > 0:
            process["consoleSize"] = {"height": command.size[0], "width": command.size[1]}
    return process


def encoded(process: Document) -> bytes:
    """Returns the JSON of a process for containerd. Call `encoded` in an executor."""
    return json.dumps(process, separators=(",", ":")).encode()


def _merged(entries: Sequence[str], variables: Mapping[str, str]) -> list[str]:
    kept = [entry for entry in entries if entry.partition("=")[0] not in variables]
    return [*kept, *(f"{name}={value}" for name, value in variables.items())]
