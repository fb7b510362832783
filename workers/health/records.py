"""Records of a task's health check, between plugin and workers."""

from __future__ import annotations

from workers.protocol import Record

HEALTH_STATE, HEALTH_FIFO = "health.state", "health.fifo"
"""Names below the task's state directory, beside the check `protocol.HEALTH_CHECK`."""

# Status of a task's health.
STARTING = "starting"
HEALTHY = "healthy"
UNHEALTHY = "unhealthy"


class HealthCheck(Record):
    """A task's health check, in the file `protocol.HEALTH_CHECK`.

    The plugin writes the file before the request `watch`.

    Attributes:
        process: JSON of the OCI process of the check's command.
        interval_ms: time from the end of a check to the begin of the next.
        timeout_ms: longest time of a check.
        start_period_ms: time after the task's start in which failures do not count, until the first
            success.
        start_interval_ms: as `interval_ms`, in the start period.
        retries: number of failures in a row that make the task unhealthy.
        restarts: an unhealthy task is ended with an exit that is a failure.
        signal: number of the signal that ends an unhealthy task.
        kill_timeout_ms: time from the signal to SIGKILL.
    """

    process: str
    interval_ms: int
    timeout_ms: int
    start_period_ms: int
    start_interval_ms: int
    retries: int
    restarts: bool
    signal: int
    kill_timeout_ms: int


class HealthState(Record):
    """A change of a task's health, and the result of the check that caused the change.

    Attributes:
        status: HEALTHY or UNHEALTHY.
        code: exit code of the check; None if the check did not end by itself.
        problem: why the check did not end by itself; "" with a code.
        output: begin of the check's output.
        at_ns: time of the change, in ns since the epoch.
        failures: number of failures in a row.
        restarts: the task is being ended because of the change.
    """

    status: str
    code: int | None = None
    problem: str = ""
    output: str = ""
    at_ns: int = 0
    failures: int = 0
    restarts: bool = False
