"""Start of the program as root: as root already, or as root of the user's rootless containerd."""

from __future__ import annotations

import os

from plugin import environment


def need_root() -> None:
    """Returns as root, also as root of a user namespace. Else starts the program again as such.

    Raises:
        DriverError: code DENIED; the user has no rootless containerd that answers.
    """
    if os.geteuid() == 0:
        return
    from actors.processes import user_namespace  # noqa: PLC0415 - root needs no such module

    directory = environment.variable("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    user_namespace.start_again_inside(f"{directory}/containerd/containerd.sock")
