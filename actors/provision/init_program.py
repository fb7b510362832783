"""Finds the init program: a static binary of the node, process 1 of tasks with `init`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from proto.errors import start_refused

if TYPE_CHECKING:
    from actors.model.settings import DriverSettings


# Static programs: a container has no libraries of the node.
_INITS = (
    "/usr/libexec/podman/catatonit",
    "/usr/bin/catatonit",
    "/usr/bin/tini-static",
    "/usr/bin/docker-init",
)


def init_program(settings: DriverSettings) -> str:
    """Returns the path of the program that becomes process 1 of tasks with `init`.

    Raises:
        DriverError: code INVALID; the node has no such program.
    """
    candidates = (settings.init_path,) if settings.init_path else _INITS
    for path in candidates:
        if Path(path).is_file():
            return path
    raise start_refused(
        "init: no init program on this machine",
        "install catatonit, or set the driver's init_path to a static program",
        details=f"searched {', '.join(candidates)}",
    )
