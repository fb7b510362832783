"""Exhausted resources: advice for each errno, and the error that carries the advice."""

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
    """Returns advice if disk, descriptors, processes or memory are exhausted; else ""."""
    return _ADVICE.get(error.errno or 0, "")


def exhausted(
    brief: str, error: OSError, *, resolution: str = "", code: Code = Code.INTERNAL
) -> DriverError:
    """Builds the error of a failed system call, most often for an exhausted resource.

    Args:
        brief: the failed action and its place.
        error: the kernel's error.
        resolution: advice if the errno names no exhausted resource.
        code: code if the errno names no exhausted resource. EXHAUSTED counts as recoverable.
    """
    found = advice(error)
    if found:
        resolution, code = found, Code.EXHAUSTED
    where = f"{error.filename}: " if error.filename else ""
    return DriverError(
        brief,
        details=f"{where}{error.strerror or error}",
        resolution=resolution,
        recoverable=code is Code.EXHAUSTED,
        code=code,
    )
