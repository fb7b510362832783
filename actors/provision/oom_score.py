"""The OOM score of a process that a runtime has made, where the runtime has not set it.

crun 1.8 takes a score of 0 for none, and gives an exec none. Both then have containerd's own, and
the kernel would kill the agent before the task that ate the memory.
"""

from __future__ import annotations

import logging
from pathlib import Path

_log = logging.getLogger(__name__)


def give(pid: int, container_id: str, wanted: int) -> None:
    """Gives a process of a container the wanted score, if it has another one.

    A runtime with a kernel of its own may tell a pid of that kernel, which is another process here:
    only one in the container's cgroup is touched.
    """
    process = Path(f"/proc/{pid}")
    score = process / "oom_score_adj"
    try:
        if int(score.read_text()) != wanted and container_id in (process / "cgroup").read_text():
            score.write_text(str(wanted))
    except (OSError, ValueError) as error:
        _log.info(
            "a process keeps the OOM score that it has",
            extra={"id": container_id, "pid": pid, "why": str(error)},
        )
