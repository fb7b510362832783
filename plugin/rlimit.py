"""How many files this process may have open at once."""

from __future__ import annotations

import resource


def allow_all() -> None:
    """Raises the soft limit to the hard one.

    systemd and shells give 1024 for the sake of programs that call select(2). A task takes two
    descriptors here for as long as it runs, so that limit would be one of some 500 tasks.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
