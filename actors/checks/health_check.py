"""The health check of a task: the file in the state directory from which the worker runs the check.

Each worker of the task reads the file, also a worker that replaces a dead worker. So the check
needs neither the plugin nor Nomad's copy of the job.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

from actors.model import signal_names
from containerd.image import health_check
from containerd.image.health_check import RESTART
from containerd.spec.exec_process import Command, encoded, process_for_exec
from proto import frames
from proto.errors import Code, DriverError
from proto.exhaustion import exhausted
from workers import exit_record, protocol
from workers.health import records

if TYPE_CHECKING:
    from actors.model.settings import TaskOptions
    from actors.processes.worker_link import WorkerLink
    from containerd.documents import Document
    from containerd.image.config import ImageConfig
    from containerd.image.health_check import CompleteCheck

_MAX_PROCESS_BYTES = 2 << 20
"""The shim takes no request of more than 4 MiB."""


async def prepare(
    directory: Path,
    options: TaskOptions,
    image: ImageConfig,
    spec: Document,
    link: WorkerLink,
    *,
    of_image: bool,
) -> str:
    """Gives the task's worker the health check, if the task has a check.

    Args:
        directory: the task's state directory.
        options: the job's options.
        image: the config of the task's image.
        spec: OCI spec of the task; the command gets the task's user, environment and limits.
        link: the task's worker, which does not yet watch the task.
        of_image: True if the operator allows the checks of images.

    Returns:
        A note for the job's author if no check can run; else "".

    Raises:
        DriverError: code INVALID; the environment is too large. EXHAUSTED; no space is left.
    """
    job = options.healthcheck
    if job is None and not of_image:
        return ""
    check = health_check.complete(job, image.health_check, image.shell)
    if check is None:
        return "healthcheck has no test, and the image has none" if job and not job.test else ""
    if link.health is None:
        return (
            "no health checks: the worker of the task is of an older release. Restart"
            " nomad-driver-containerd-launcher.service, then the task"
        )
    stop_signal = options.stop_signal or image.stop_signal
    await asyncio.to_thread(_write, directory, check, spec, stop_signal)
    link.health = records.STARTING
    return ""


def _write(directory: Path, check: CompleteCheck, spec: Document, stop_signal: str) -> None:
    """Writes the file. Blocks: the job decides the size of the spec."""
    process = encoded(process_for_exec(spec, Command(words=check.command)))
    if len(process) > _MAX_PROCESS_BYTES:
        raise DriverError(
            f"healthcheck: the command needs {len(process)} bytes with the task's environment",
            details=f"the runtime takes {_MAX_PROCESS_BYTES} bytes",
            resolution="make the environment or the test smaller, or disable the check",
            code=Code.INVALID,
        )
    record = records.HealthCheck(
        process=process.decode(),
        interval_ms=_ms(check.interval_s),
        timeout_ms=_ms(check.timeout_s),
        start_period_ms=_ms(check.start_period_s),
        start_interval_ms=_ms(check.start_interval_s),
        retries=check.retries,
        restarts=check.on_failure == RESTART,
        signal=signal_names.stop_signal("", stop_signal),
        kill_timeout_ms=_ms(check.kill_timeout_s),
    )
    body = frames.pack({"v": exit_record.VERSION, **record.to_wire()})
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        file = os.open(directory / protocol.HEALTH_CHECK, flags, 0o600)
        try:
            done = 0
            while done < len(body):
                done += os.write(file, body[done:])
        finally:
            os.close(file)
    except OSError as error:
        raise exhausted(
            "cannot write the task's health check", error, code=Code.EXHAUSTED
        ) from error


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000)) if seconds else 0
