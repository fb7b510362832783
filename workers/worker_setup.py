"""Set-up of a worker: spec, identity, the task's state directory, and the lock in the directory.

A worker whose set-up fails sends the reason to the plugin.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time

from proto.errors import Code, DriverError
from proto.exhaustion import exhausted
from proto.release import RELEASE
from workers import identity, protocol
from workers.protocol import WorkerSpec

_LOCK_PAUSES_S = (0.005, 0.02, 0.05)


def parse_spec(spec: object) -> WorkerSpec:
    """Reads the spec in a fork request.

    Raises:
        DriverError: code INVALID; the request has no spec. CORRUPT; the spec cannot be read.
    """
    if not isinstance(spec, dict):
        raise DriverError("a worker was asked for without its spec", code=Code.INVALID)
    return WorkerSpec.from_wire(spec)


def own_identity() -> identity.Identity:
    """Returns the identity of this process.

    Raises:
        DriverError: code UNSUPPORTED; /proc does not list this process.
    """
    this = identity.identify(os.getpid())
    if this is None:
        raise DriverError(
            "the worker cannot read its own entry in /proc",
            resolution="mount /proc where the launcher runs",
            code=Code.UNSUPPORTED,
        )
    return this


def open_directory(path: str) -> int:
    """Opens the task's state directory, to which no other user may have access.

    Raises:
        DriverError: code EXHAUSTED or PRECONDITION; the directory cannot be opened, or other users
            have access to the directory.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise exhausted(
            f"cannot open the task's state directory {path!r}", error, code=Code.PRECONDITION
        ) from error
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        os.close(descriptor)
        raise precondition(f"the task's state directory {path!r} is open to others")
    return descriptor


def lock_task(directory: int, spec: WorkerSpec, this: identity.Identity) -> int:
    """Takes the lock of the task's one worker, and writes the worker's identity into the lock file.

    The kernel drops the lock when the process ends.

    Args:
        directory: descriptor of the task's state directory.
        spec: spec of the worker.
        this: identity of this process.

    Returns:
        The descriptor that holds the lock.

    Raises:
        DriverError: code ALREADY_EXISTS; another worker holds the lock.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(protocol.WORKER_LOCK, flags, 0o600, dir_fd=directory)
    if not _locked(descriptor):
        os.close(descriptor)
        raise DriverError(
            f"task {spec.name} has a worker already",
            resolution=f"connect to {protocol.CONTROL_SOCKET} in {spec.dir}",
            code=Code.ALREADY_EXISTS,
        )
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{this.pid} {this.start_ticks} {this.boot_id} {RELEASE}\n".encode())
    return descriptor


def _locked(descriptor: int) -> bool:
    """Returns whether this process has got the lock.

    A killed worker loses its connections before its lock, so a held lock is tried a few times.
    """
    for pause_s in (*_LOCK_PAUSES_S, None):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if pause_s is not None:
                time.sleep(pause_s)
        else:
            return True
    return False


def precondition(brief: str) -> DriverError:
    """Builds the error of a request that comes too early or too late."""
    return DriverError(brief, code=Code.PRECONDITION)


def as_driver_error(error: DriverError | OSError, spec: object) -> DriverError:
    """Returns the error of a failed set-up in the form that crosses process borders."""
    if isinstance(error, DriverError):
        return error
    path = spec.get("dir") if isinstance(spec, dict) else ""
    return exhausted(
        f"cannot set up the task's worker in {path}",
        error,
        resolution="check that the driver's state_dir is writable",
        code=Code.EXHAUSTED,
    )
