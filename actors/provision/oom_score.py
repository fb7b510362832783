"""Sets the OOM score of a process where the runtime has not set the score.

crun 1.8 ignores a score of 0, and sets no score for an exec. Such a process inherits containerd's
score, and the kernel would kill the agent before the task that used up the memory.
"""

from __future__ import annotations

import logging
from pathlib import Path

_log = logging.getLogger(__name__)


def set_score(pid: int, container_id: str, wanted: int) -> None:
    """Sets the OOM score of a container's process, if the process has another score.

    A runtime with its own kernel can report a pid of that kernel, which is the pid of another
    process on the node. So only a process in the container's cgroup is changed.

    Args:
        pid: the process, as the runtime reports it.
        container_id: the container, whose id is in the path of the cgroup.
        wanted: the score, -1000 to 1000.
    """
    process = Path(f"/proc/{pid}")
    score = process / "oom_score_adj"
    try:
        if int(score.read_text()) != wanted and container_id in (process / "cgroup").read_text():
            score.write_text(str(wanted))
    except (OSError, ValueError) as error:
        _log.info(
            "cannot set the OOM score of a process",
            extra={"container_id": container_id, "pid": pid, "reason": str(error)},
        )
