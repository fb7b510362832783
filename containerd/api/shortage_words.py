"""What containerd, its shims and its runtimes have run out of, told by their words alone."""

from __future__ import annotations

import re

_DISK = re.compile(r"(/[^\s:]+): (?:no space left on device|disk quota exceeded)")
_ADVICE = {
    "no space left on device": "make room on containerd's disks: df shows the bytes, df -i the"
    " files",
    "disk quota exceeded": "make room on containerd's disks, or raise the quota",
    "too many open files in system": "the whole machine has no open file left: see fs.file-nr,"
    " raise fs.file-max",
    "too many open files": "raise the limit of open files (LimitNOFILE of containerd's unit)",
    "resource temporarily unavailable": "raise the limit of processes (TasksMax of containerd's"
    " unit, pids.max; the task's pids_limit)",
    "cannot allocate memory": "free memory on this node",
}


def advice(text: str) -> str:
    """Returns what to do about a failure for want of something; empty for any other failure."""
    said = text.lower()
    for words, what in _ADVICE.items():
        if words in said:
            place = _DISK.search(text)
            return f"make room where {place[1]} lies: see df and df -i" if place else what
    return ""
