"""Where a template of the embedded host may write its file."""

from __future__ import annotations

import os

_MAX_BYTES, _MAX_NAME_BYTES, _MAX_LEVELS = 1024, 255, 32
_DIRECTORIES = {
    *("task/local", "task/secrets", "task/tmp", "task/private"),
    *("alloc/logs", "alloc/data", "alloc/tmp"),
}
HOMES = {
    "NOMAD_TASK_DIR": "local",
    "NOMAD_SECRETS_DIR": "secrets",
    "NOMAD_ALLOC_DIR": "../alloc",
}
"""Where these lie, seen from the task's own directory on the host."""
_ADVICE = 'write it like "local/app.conf"'


def known(destination: str) -> str:
    """Returns a destination with the references in it that mean the same in every allocation."""
    for name, home in HOMES.items():
        destination = destination.replace(f"${{{name}}}", home)
    return destination


def normal(destination: str) -> str:
    """Returns the place below the allocation, where `task` stands for the task's own directory."""
    return os.path.normpath(f"task/{destination.lstrip('/')}")


def problem(destination: str) -> str:
    """Returns why no file can be written there; empty where one can."""
    place = normal(destination)
    home, _, rest = place.partition("/")
    parts = place.encode(errors="replace").split(b"/")
    if "\0" in destination:
        return "has a NUL character"
    if home not in {"task", "alloc"} or not rest:
        return f"leaves the task directory: {_ADVICE}"
    if sum(map(len, parts)) > _MAX_BYTES or len(parts) > _MAX_LEVELS:
        return f"is longer than {_MAX_BYTES} bytes or deeper than {_MAX_LEVELS} levels"
    if max(map(len, parts)) > _MAX_NAME_BYTES:
        return f"has a name of more than {_MAX_NAME_BYTES} bytes"
    if place in _DIRECTORIES or destination.endswith("/"):
        return f"is a directory: {_ADVICE}"
    if rest.partition("/")[0] == ".etc" and home == "task":
        return f"is in the driver's own directory: {_ADVICE}"
    if place.startswith("alloc/logs/.") and place.endswith(".fifo"):
        return f"is a task's log: {_ADVICE}"
    return ""
