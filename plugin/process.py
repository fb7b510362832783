"""Limit of open files and lifetime of the plugin process."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable

from plugin import environment


def raise_file_limit() -> None:
    """Raises the soft limit of open files to the hard limit.

    systemd and shells set a soft limit of 1024 for programs that call select(2). The plugin holds
    two descriptors for each running task, so a limit of 1024 would allow about 500 tasks.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def leave_with_dev_host(leave: Callable[[], object]) -> None:
    """Calls `leave` on the running loop when the dev host has ended, at once if it already has.

    A plugin of a dev host must end with the dev host: no other program would find the plugin. Under
    a Nomad agent the function does nothing: a plugin outlives its agent, and the next agent takes
    the plugin over or recovers the tasks with a new plugin.
    """
    host = environment.dev_host_pid()
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
