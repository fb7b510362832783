"""Failed containerd calls as DriverErrors.

No other module knows gRPC's errors of containerd, or the texts of containerd, shims and runtimes.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import time
from collections.abc import Awaitable, Generator
from typing import TypeVar

import grpc

from containerd.api import deadlines
from proto.errors import Code, DriverError
from proto.exhaustion import advice

T = TypeVar("T")
_log = logging.getLogger(__name__)

_CODES: dict[grpc.StatusCode, tuple[Code, bool]] = {
    grpc.StatusCode.NOT_FOUND: (Code.NOT_FOUND, False),
    grpc.StatusCode.ALREADY_EXISTS: (Code.ALREADY_EXISTS, False),
    grpc.StatusCode.UNAVAILABLE: (Code.UNAVAILABLE, True),
    grpc.StatusCode.DEADLINE_EXCEEDED: (Code.TIMEOUT, True),
    # A stopping containerd cancels its open calls. A call that the driver cancels raises
    # asyncio.CancelledError instead.
    grpc.StatusCode.CANCELLED: (Code.UNAVAILABLE, True),
    grpc.StatusCode.FAILED_PRECONDITION: (Code.PRECONDITION, False),
    grpc.StatusCode.INVALID_ARGUMENT: (Code.INVALID, False),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (Code.EXHAUSTED, True),
    grpc.StatusCode.PERMISSION_DENIED: (Code.DENIED, False),
    grpc.StatusCode.UNIMPLEMENTED: (Code.UNSUPPORTED, False),
    grpc.StatusCode.DATA_LOSS: (Code.CORRUPT, False),
}
_DETAILS_LIMIT = 2000
# Resources that the driver's own process may lack. gRPC passes on the kernel's text. The text of
# ENFILE contains the text of EMFILE, so ENFILE is compared first.
_OWN_EXHAUSTION = (errno.ENFILE, errno.EMFILE, errno.ENOMEM)
# Texts of runc and crun.
_NO_PROGRAM = re.compile(r'container process(?: caused)?: exec: "|executable file `')
_REFUSED = "Permission denied"
# Text of Go's context package. gRPC's text for a deadline of the driver has no word "context".
_GO_DEADLINE = "context deadline exceeded"
_NOT_ROOT = "only root can connect to the socket: run the command with sudo"
_START_CONTAINERD = "start containerd (systemctl start containerd), or set containerd_address"

_DISK = re.compile(r"(/[^\s:]+): (?:no space left on device|disk quota exceeded)")
# Text of the kernel's error in a Go program, in lower case: advice. The longer text of two that
# begin alike is compared first.
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


@contextlib.contextmanager
def driver_errors(path: str, action: str, address: str) -> Generator[None]:
    """Replaces gRPC's error of the enclosed call by a DriverError, and logs the failure.

    The log line has no text of containerd: a runtime's text can contain a task's command line.

    Args:
        path: path of the method, for the log.
        action: the request in words with its id, such as "delete container x".
        address: containerd's socket.

    Raises:
        DriverError: see `as_driver_error`.
    """
    began = time.monotonic()
    try:
        yield
    except grpc.RpcError as failed:
        error = as_driver_error(failed, action, address)
        elapsed_ms = round((time.monotonic() - began) * 1000)
        fields = {"method": path, "code": error.code.value, "elapsed_ms": elapsed_ms}
        _log.debug("containerd call failed", extra=fields)
        raise error from None


def as_driver_error(error: grpc.RpcError, action: str, address: str) -> DriverError:
    """Returns the DriverError of a failed call.

    Args:
        error: gRPC's error, of the synchronous or the asynchronous API.
        action: the request in words with its id; completes the sentence "containerd cannot …".
        address: containerd's socket, for errors of the connection.
    """
    status = error.code()
    text = str(error.details() or "")[:_DETAILS_LIMIT]
    code, recoverable = _CODES.get(status, (Code.INTERNAL, False))
    lack = next((number for number in _OWN_EXHAUSTION if os.strerror(number) in text), 0)
    if code is Code.UNAVAILABLE and lack and _is_text_of_grpc(text):
        return DriverError(
            f"the driver cannot ask containerd at {address} to {action}",
            details=os.strerror(lack),
            resolution=advice(OSError(lack, os.strerror(lack))),
            recoverable=True,
            code=code,
        )
    if status is grpc.StatusCode.CANCELLED or (code is Code.UNAVAILABLE and _is_text_of_grpc(text)):
        reason = text.rpartition("error: ")[2]
        return DriverError(
            f"containerd does not answer at {address}",
            details=f"asked to {action}; {reason}",
            resolution=_NOT_ROOT if _REFUSED in reason else _START_CONTAINERD,
            recoverable=True,
            code=code,
        )
    resolution = ""
    if code is Code.TIMEOUT:
        if _GO_DEADLINE in text:
            return _SilentShimError(
                f"containerd cannot {action}",
                details=f"containerd waited in vain, as for a shim that hangs: {text}",
                resolution=deadlines.ADVICE,
                recoverable=True,
                code=code,
            )
        text = f"containerd at {address} accepted the request and did not answer in time"
        resolution = deadlines.ADVICE
    if code is Code.INTERNAL and text.endswith("already exists"):
        code = Code.ALREADY_EXISTS  # containerd 1.4, of a task
    if code is Code.INTERNAL and "ttrpc: closed" in text:
        code, recoverable = Code.UNAVAILABLE, True
    if _NO_PROGRAM.search(text):
        resolution = "name a program that the image has and that its user may run"
    if shortage := exhaustion_advice(text):
        code, recoverable, resolution = Code.EXHAUSTED, True, shortage
    return DriverError(
        f"containerd cannot {action}",
        details=text,
        resolution=resolution,
        recoverable=recoverable,
        code=code,
    )


def exhaustion_advice(text: str) -> str:
    """Returns advice for an error text of an exhausted resource; empty for any other text."""
    lower = text.lower()
    for cause, general in _ADVICE.items():
        if cause in lower:
            path = _DISK.search(text)
            return f"make room on the disk of {path[1]}: see df and df -i" if path else general
    return ""


class _SilentShimError(DriverError):
    """The failure of a call in which containerd waited in vain for a shim."""


async def unless_silent(call: Awaitable[T], instead: T) -> T:
    """Returns the result of a call; `instead` if containerd waited in vain for a shim.

    containerd waits two seconds for a shim's answer (io.containerd.timeout.task.state).

    Raises:
        DriverError: any other failure of the call, also of a containerd without an answer.
    """
    try:
        return await call
    except _SilentShimError:
        return instead


async def unless_missing(call: Awaitable[T]) -> T | None:
    """Returns the result of a call; None if containerd answers NOT_FOUND.

    Raises:
        DriverError: any other failure of the call.
    """
    try:
        return await call
    except DriverError as error:
        if error.code is Code.NOT_FOUND:
            return None
        raise


def _is_text_of_grpc(text: str) -> bool:
    """Returns True for gRPC's own text of a failed connection, which exists in many wordings.

    containerd's own errors of this code, such as that of an ended shim, end with "unavailable".
    """
    return not text.endswith("unavailable")
