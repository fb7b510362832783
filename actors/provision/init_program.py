"""The init program: a static binary of the node that becomes process 1 of tasks with `init`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from actors.model.settings import DriverSettings


# Static ones: the container has no library of the host's.
_INITS = (
    "/usr/libexec/podman/catatonit",
    "/usr/bin/catatonit",
    "/usr/bin/tini-static",
    "/usr/bin/docker-init",
)


def init_program(settings: DriverSettings) -> str:
    """The program that becomes process 1 of tasks with `init`.

    Raises:
        DriverError: code INVALID; there is none.
    """
    candidates = (settings.init_path,) if settings.init_path else _INITS
    for path in candidates:
        if Path(path).is_file():
            return path
    raise DriverError(
        "Error in creating container: init: no init program on this machine",
        details=f"looked for {', '.join(candidates)}",
        resolution="install catatonit, or name a static one as the driver's init_path",
        code=Code.INVALID,
    )
