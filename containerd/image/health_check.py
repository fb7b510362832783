"""Health checks as images and jobs describe them, in Docker's terms. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from proto.values import dataclass

T = TypeVar("T")
EVENT, RESTART = "event", "restart"
"""Effects of an unhealthy task: a task event, or also the end of the task as a failure."""
NONE, COMMAND, SHELL = "NONE", "CMD", "CMD-SHELL"
"""First words of a test: no check, the words of a command, a line for the image's shell."""
_DEFAULT_SHELL = ("/bin/sh", "-c")
_NS = 1_000_000_000
LEAST_S = 0.1
"""Shortest time: each check is work of the runtime, which no limit of the task holds."""
_MOST_S, _MOST_RETRIES = 366 * 24 * 3600, 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """A health check; None and an empty test mean "not set".

    test: `NONE`, `CMD` or `CMD-SHELL`, and the words.
    kill_timeout_s: time from the stop signal to SIGKILL for a task that is restarted.
    """

    test: tuple[str, ...] = ()
    interval_s: float | None = None
    timeout_s: float | None = None
    start_period_s: float | None = None
    start_interval_s: float | None = None
    retries: int | None = None
    on_failure: str = EVENT
    kill_timeout_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CompleteCheck:
    """A health check with a command and all times, Docker's where image and job name none."""

    command: tuple[str, ...]
    interval_s: float
    timeout_s: float
    start_period_s: float
    start_interval_s: float
    retries: int
    on_failure: str
    kill_timeout_s: float


def parse(fields: object) -> HealthCheck | None:
    """Reads `Healthcheck` of an image's config; None without a test.

    Docker writes the field, the image specification has none. So a malformed value is not set.
    """
    if not isinstance(fields, Mapping):
        return None
    test = fields.get("Test")
    if not isinstance(test, list) or not test or not all(_is_word(word) for word in test):
        return None
    retries = fields.get("Retries")
    return HealthCheck(
        test=tuple(test),
        interval_s=_seconds(fields.get("Interval")),
        timeout_s=_seconds(fields.get("Timeout")),
        start_period_s=_seconds(fields.get("StartPeriod")),
        start_interval_s=_seconds(fields.get("StartInterval")),
        retries=retries if type(retries) is int and 0 < retries <= _MOST_RETRIES else None,
    )


def complete(
    job: HealthCheck | None, image: HealthCheck | None, shell: tuple[str, ...]
) -> CompleteCheck | None:
    """Merges the checks of a job and of an image; None if no check is to run.

    Args:
        job: the job's check; its values win one by one.
        image: the image's check; None also where the operator does not allow the check.
        shell: the image's shell, or empty.
    """
    job, image = job or HealthCheck(), image or HealthCheck()
    command = _command(job.test or image.test, shell)
    if not command:
        return None
    return CompleteCheck(
        command=command,
        interval_s=_first(job.interval_s, image.interval_s, 30.0),
        timeout_s=_first(job.timeout_s, image.timeout_s, 30.0),
        start_period_s=_first(job.start_period_s, image.start_period_s, 0.0),
        start_interval_s=_first(job.start_interval_s, image.start_interval_s, 5.0),
        retries=_first(job.retries, image.retries, 3),
        on_failure=job.on_failure,
        kill_timeout_s=job.kill_timeout_s,
    )


def _command(test: tuple[str, ...], shell: tuple[str, ...]) -> tuple[str, ...]:
    kind, words = test[:1], test[1:]
    if kind == (COMMAND,):
        return words
    if kind == (SHELL,) and words:
        return (*(shell or _DEFAULT_SHELL), *words)
    return ()


def _first(of_job: T | None, of_image: T | None, default: T) -> T:
    if of_job is not None:
        return of_job
    return default if of_image is None else of_image


def _is_word(word: Any) -> bool:
    return isinstance(word, str) and "\0" not in word and word == _encodable(word)


def _encodable(word: str) -> str:
    return word.encode(errors="replace").decode()


def _seconds(value: object) -> float | None:
    """Returns the seconds of a time in ns; None for 0, which means Docker's default."""
    if type(value) is not int or not 0 < value <= _NS * _MOST_S:
        return None
    return max(LEAST_S, value / _NS)
