"""A plugin of the embedded host ends when its host does, however that dies.

Nobody else would ever find it. A Nomad agent's plugin outlives its agent: the next agent takes it
over, or recovers its tasks with one of its own and ends it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from plugin import environment


def leave_with_host(leave: Callable[[], object]) -> None:
    """Has `leave` called on the running loop once the host is gone; at once where it is already."""
    host = environment.host_pid()
    if not host:
        return
    try:
        pidfd = os.pidfd_open(host)
    except ProcessLookupError:
        leave()
        return
    except OSError:  # a kernel or sandbox without pidfds
        return
    asyncio.get_running_loop().add_reader(pidfd, leave)
