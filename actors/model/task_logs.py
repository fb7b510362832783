"""Collector of a task's log: Nomad's logmon, or the task's worker."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from actors.model.settings import LogOptions
from proto.errors import Code, DriverError, start_refused
from proto.values import dataclass
from workers import protocol

if TYPE_CHECKING:
    from pathlib import Path

    from actors.model.nomad import TaskConfig
    from actors.model.settings import DriverSettings, TaskOptions

NOMAD, DRIVER = "nomad", "driver"
"""Values of the driver's option log_collection."""

FILES, JOURNALD, NONE = protocol.FILES, protocol.JOURNALD, "none"
"""Types of a log that the worker collects, and of a log that no program collects."""

TAG_FIELDS = ("Name", "ID", "FullID", "ImageName")
"""Names in Docker's templates of tags."""

_TAG_FIELD = re.compile(r"\{\{\s*\.([A-Za-z]+)\s*\}\}")
_SHORT_ID = 12

NO_LOG = frozenset({"", os.devnull})
"""Nomad's log paths of a task whose logs are not collected (`logs { disabled = true }`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogTarget:
    """The collector of a task's log, as the task began: part of the handle.

    type: empty where Nomad collects the log, NONE without a log, else a type of `workers.protocol`.
    max_files, max_file_bytes: limits of the log files of a stream.
    journal_fields: fields of each message in the journal, as lines NAME=value.
    """

    type: str = ""
    max_files: int = 0
    max_file_bytes: int = 0
    journal_fields: str = ""

    @property
    def has_collector(self) -> bool:
        """True if the task's worker collects the log."""
        return self.type not in {"", NONE}


NOMAD_LOG = LogTarget()


def target_of(
    settings: DriverSettings, options: TaskOptions, task: TaskConfig, container_id: str
) -> LogTarget:
    """Returns the collector for a task that starts now.

    Raises:
        DriverError: code INVALID; the job's log needs `log_collection = "driver"`.
    """
    if settings.log_collection == NOMAD:
        if options.logging:
            _check_for_nomad(options.logging)
        return NOMAD_LOG
    wanted = options.logging or settings.logging or LogOptions(type=FILES)
    if wanted.type == JOURNALD:
        fields = _journal_fields(task, container_id, options.image, wanted.tag)
        return LogTarget(type=wanted.type, journal_fields=fields)
    if wanted.type == NONE:
        return LogTarget(type=NONE)
    return LogTarget(
        type=wanted.type,
        max_files=wanted.max_files or settings.log_max_files,
        max_file_bytes=wanted.max_file_bytes or settings.log_max_file_bytes,
    )


def unused(settings: DriverSettings, options: TaskOptions) -> tuple[str, ...]:
    """Returns a sentence about limits of a job's log files that Nomad's collector does not see."""
    wanted = options.logging
    if settings.log_collection != NOMAD or not wanted:
        return ()
    if not (wanted.max_files or wanted.max_file_bytes):
        return ()
    return ("logging: max-file and max-size: Nomad writes the files, within the task's logs block",)


def check_default(settings: DriverSettings) -> None:
    """Refuses a `logging` block of the plugin that no task could have.

    Raises:
        DriverError: code INVALID; the log needs `log_collection = "driver"`.
    """
    wanted = settings.logging
    if settings.log_collection == NOMAD and wanted and wanted.type != FILES:
        raise DriverError(
            f"logging: the type {wanted.type} is not possible where Nomad collects the logs",
            resolution='set log_collection = "driver" in the plugin block',
            code=Code.INVALID,
        )


def _check_for_nomad(wanted: LogOptions) -> None:
    if wanted.type == NONE:
        raise start_refused(
            "logging: the type none has no effect where Nomad collects the logs",
            'write logs { disabled = true } into the task, or set log_collection = "driver" in the'
            " plugin block",
        )
    if wanted.type == JOURNALD:
        raise start_refused(
            "logging: the type journald is not possible where Nomad collects the logs",
            'set log_collection = "driver" in the plugin block',
        )


def _journal_fields(task: TaskConfig, container_id: str, image: str, tag: str) -> str:
    names = (task.name, container_id[:_SHORT_ID], container_id, image)
    known: dict[str, str] = dict(zip(TAG_FIELDS, names, strict=True))
    tag = _TAG_FIELD.sub(lambda match: known.get(match[1], ""), tag) or task.name
    fields = {
        "CONTAINER_NAME": container_id,
        "CONTAINER_ID": container_id[:_SHORT_ID],
        "CONTAINER_ID_FULL": container_id,
        "CONTAINER_TAG": tag,
        "SYSLOG_IDENTIFIER": tag,
        "IMAGE_NAME": image,
        "NOMAD_ALLOC_ID": task.alloc_id,
        "NOMAD_TASK_NAME": task.name,
        "NOMAD_GROUP_NAME": task.task_group_name,
        "NOMAD_JOB_ID": task.job_id,
        "NOMAD_JOB_NAME": task.job_name,
        "NOMAD_NAMESPACE": task.namespace,
    }
    # A line break would begin another field.
    plain = {name: " ".join(value.split("\n")) for name, value in fields.items()}
    return "".join(f"{name}={value}\n" for name, value in plain.items() if value)


def shim_paths(target: LogTarget, directory: Path, nomad: tuple[str, str]) -> tuple[str, str]:
    """Returns the FIFOs that the shim writes to, for stdout and stderr.

    Args:
        target: the collector.
        directory: the task's state directory.
        nomad: Nomad's paths for stdout and stderr; a path of NO_LOG stays as it is.
    """
    if target.type == NONE:
        return "", ""
    if not target.type:
        return nomad
    own = (str(directory / name) for name in (protocol.STDOUT_FIFO, protocol.STDERR_FIFO))
    stdout, stderr = (
        path if path in NO_LOG else fifo for path, fifo in zip(nomad, own, strict=True)
    )
    return stdout, stderr


def worker_fields(target: LogTarget, nomad: tuple[str, str]) -> dict[str, Any]:
    """Returns the fields of a `WorkerSpec` about the log.

    Args:
        target: the collector.
        nomad: Nomad's paths for stdout and stderr.
    """
    stdout, stderr = nomad
    match target.type:
        case "":
            return {"stdout": stdout, "stderr": stderr}
        case protocol.FILES:
            return {
                "stdout": _file(stdout),
                "stderr": _file(stderr),
                "log_type": target.type,
                "log_files": target.max_files,
                "log_file_bytes": target.max_file_bytes,
            }
        case protocol.JOURNALD:
            return {
                "stdout": "" if stdout in NO_LOG else "stdout",
                "stderr": "" if stderr in NO_LOG else "stderr",
                "log_type": target.type,
                "journal_fields": target.journal_fields,
            }
        case _:
            return {}


def _file(fifo: str) -> str:
    """Returns the path of log files without number: `logs/.web.stdout.fifo` is `logs/web.stdout`.

    Both names are Nomad's (client/allocrunner/taskrunner/logmon_hook.go).
    """
    if fifo in NO_LOG:
        return fifo
    directory, _, name = fifo.rpartition("/")
    return f"{directory}/{name.removeprefix('.').removesuffix('.fifo')}"
