"""Task configs and task ends of the tests of a plugin host."""

from __future__ import annotations

import uuid

from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.nomad.go_host import GoHost, HostTask, Json
from tests.support.nomad.leftovers import pids_with
from tests.support.waiting import slowed

TICKING = "i=0; while true; do echo tick $i; i=$((i+1)); sleep 0.1; done"


class Scripts:
    """Task configs that run shell scripts whose processes can be found from outside."""

    def __init__(self, image: str) -> None:
        self.image = image
        self.mark = uuid.uuid4().hex

    def config(self, script: str, extra: str = "") -> str:
        """Formats the body of a `config` block."""
        return f"""
            image   = "{self.image}"
            command = "sh"
            args    = ["-c", ": {self.mark}; {script}"]
            {extra}
        """

    def pids(self) -> list[int]:
        """Returns the processes in the host's numbers."""
        return pids_with(self.mark)


def finish(host: GoHost, task: HostTask, *, timeout_s: float = 20, signal_name: str = "") -> Json:
    """Waits and stops as a task runner does; the wait's answer."""
    waiting = host.send("wait", task_id=task.id)
    host.call("stop", task_id=task.id, timeout_s=timeout_s, signal=signal_name)
    result = waiting.result(slowed(30))
    host.end(task)
    return result


def in_containerd(containerd: ContainerdDaemon, alloc: str) -> list[str]:
    """Returns the kinds of objects in containerd that still bear the allocation's name."""
    kinds = ("containers", "tasks", "snapshots", "leases")
    return [kind for kind in kinds if alloc in containerd.ctr(kind, "ls")]
