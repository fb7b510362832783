"""Destinations of templates: allowed paths, and references in paths."""

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
"""Directories by reference, relative to the task's directory on the host."""
_ADVICE = 'write it like "local/app.conf"'


def with_homes(destination: str) -> str:
    """Replaces the references of `HOMES`, which are the same in every allocation."""
    for name, home in HOMES.items():
        destination = destination.replace(f"${{{name}}}", home)
    return destination


def below_alloc(destination: str) -> str:
    """Returns the path below the allocation; the task's directory has the name `task`."""
    return os.path.normpath(f"task/{destination.lstrip('/')}")


def problem(destination: str) -> str:
    """Returns the reason against a destination; empty if a template may write there."""
    path = below_alloc(destination)
    home, _, rest = path.partition("/")
    parts = path.encode(errors="replace").split(b"/")
    if "\0" in destination:
        return "has a NUL character"
    if home not in {"task", "alloc"} or not rest:
        return f"leaves the task directory: {_ADVICE}"
    if sum(map(len, parts)) > _MAX_BYTES or len(parts) > _MAX_LEVELS:
        return f"is longer than {_MAX_BYTES} bytes or deeper than {_MAX_LEVELS} levels"
    if max(map(len, parts)) > _MAX_NAME_BYTES:
        return f"has a name of more than {_MAX_NAME_BYTES} bytes"
    if path in _DIRECTORIES or destination.endswith("/"):
        return f"is a directory: {_ADVICE}"
    if rest.partition("/")[0] == ".etc" and home == "task":
        return f"is in the directory of the driver: {_ADVICE}"
    if path.startswith("alloc/logs/.") and path.endswith(".fifo"):
        return f"is a task's log: {_ADVICE}"
    return ""
