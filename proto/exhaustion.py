"""What has run out when the kernel refuses, and what to do about it: the words, in one place."""

from __future__ import annotations

import errno

from proto.errors import Code, DriverError

_ADVICE = {
    errno.ENOSPC: "make room there: df shows the bytes, df -i the files",
    errno.EDQUOT: "make room there, or raise the quota",
    errno.EMFILE: "raise the process's limit of open files (LimitNOFILE of its unit)",
    errno.ENFILE: "the whole machine has no open file left: see fs.file-nr, raise fs.file-max",
    errno.EAGAIN: "raise the limit of processes and threads (TasksMax of its unit, pids.max)",
    errno.ENOMEM: "free memory, or raise the memory limit of its unit",
}


def advice(error: OSError) -> str:
    """Returns what to do where disk, descriptors, processes or memory ran out; else empty."""
    return _ADVICE.get(error.errno or 0, "")


def exhausted(brief: str, error: OSError) -> DriverError:
    """The failure of what ran out of something, or that the kernel refused for another reason."""
    words = advice(error)
    where = f"{error.filename}: " if error.filename else ""
    return DriverError(
        brief,
        details=f"{where}{error.strerror or error}",
        resolution=words,
        recoverable=bool(words),
        code=Code.EXHAUSTED if words else Code.INTERNAL,
    )
