"""Log lines and task events about one task."""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import TYPE_CHECKING

from actors.asyncio_bridge import tell
from actors.events import Publish
from actors.model.log_keys import elapsed_ms, task_keys
from actors.model.nomad import TaskEvent
from actors.task import log_events
from actors.task.messages import HealthChanged, LogChanged, ProcessesKilled
from workers import protocol
from workers.health import records, texts

if TYPE_CHECKING:
    from typing import Any

    import pykka

    from actors.lifecycle.running import RunningTask
    from actors.model.nomad import ExitResult, TaskConfig
    from actors.task.messages import WorkerReport
    from workers.health.records import HealthState
    from workers.protocol import ExitRecord, LogState

_log = logging.getLogger(__name__)

_BURST, _EVERY_S = 10, 30.0
"""Changes of the health that are reported at once; later changes are one in this time. A check may
have another result ten times a second, and Nomad's servers keep each event."""


class Pace:
    """Lets a burst of reports through, and then one in a time."""

    def __init__(self) -> None:
        self._left, self._at_s = float(_BURST), 0.0
        self.skipped = 0

    def allows(self, now_s: float) -> bool:
        """Returns whether a report may be made now; counts the skipped reports."""
        self._left = min(_BURST, self._left + (now_s - self._at_s) / _EVERY_S)
        self._at_s = now_s
        if self._left < 1:
            self.skipped += 1
            return False
        self._left -= 1
        return True


class TaskReports:
    """Reports one task's life to the log and to Nomad's list of task events.

    Args:
        task: Nomad's description of the task.
        events: the EventActor.

    Attributes:
        health: status of the task's health check; empty without a check.
        keys: keys of log lines.
    """

    def __init__(self, task: TaskConfig, events: pykka.ActorRef[Any]) -> None:
        self._task = task
        self._events = events
        self.health = ""
        self._kills = 0
        self._health_pace = Pace()
        self._begun = self._stop_begun = time.monotonic()
        self.keys = task_keys(task)

    def step(self, text: str, **more: object) -> None:
        """Logs one step at DEBUG with the task's keys."""
        _log.debug(text, extra={**self.keys, **more})

    def started(self, running: RunningTask, *, recovered: bool) -> None:
        """Reports a successful start or recovery. Later lines have the container's id."""
        self.keys = {**self.keys, "container_id": running.state.container_id}
        text = "task recovered" if recovered else "task started"
        times = {"pid": running.state.pid, "elapsed_ms": elapsed_ms(self._begun)}
        _log.info(text, extra={**self.keys, **times})

    def failed(self, text: str, error: BaseException) -> None:
        """Logs the failure of a step at WARNING."""
        reason = str(error) or type(error).__name__
        _log.warning(text, extra={**self.keys, "reason": reason})

    def stop_requested(self, **more: object) -> None:
        """Reports the begin of a stop."""
        self._stop_begun = time.monotonic()
        self.step("stop of task requested", **more)

    def stop_ended(self, error: BaseException | None) -> None:
        """Reports the end of a stop: the task's exit, or a task that survives SIGKILL."""
        text = "stop of task completed" if error is None else "stop of task failed"
        reason = {} if error is None else {"reason": str(error)}
        self.step(text, elapsed_ms=elapsed_ms(self._stop_begun), **reason)

    def ended(self, result: ExitResult, record: ExitRecord) -> None:
        """Reports the task's exit.

        Args:
            result: code, signal and reason of the exit.
            record: the exit as the worker has recorded the exit.
        """
        exit_keys = {"exit_code": result.exit_code, "oom_killed": result.oom_killed}
        _log.info("task ended", extra={**self.keys, **exit_keys})
        if record.lost:
            self._publish(f"Container lost: {result.error}")
        elif result.oom_killed:
            self._publish("The kernel killed the task: out of memory")
        else:
            self.kills(record.oom_kills, f"The task ended with code {result.exit_code}")

    def kills(self, kills: int, consequence: str) -> None:
        """Reports processes of the task that the kernel killed for lack of memory.

        Args:
            kills: number of killed processes since the task's start.
            consequence: state of the task itself, a sentence without a full stop.
        """
        if kills > self._kills:
            self._kills = kills
            self._publish(
                f"The kernel killed processes of the task, {kills} so far: out of memory."
                f" {consequence}; raise the task's limit (resources.memory), or lower the task's"
                " use of memory"
            )

    def logs_drained(self, *, complete: bool) -> None:
        """Reports the end of the task's log FIFOs."""
        if complete:
            self.step("logs of the task are read to their end")
        else:
            _log.warning("log FIFO not read to its end by Nomad", extra=self.keys)

    def of_worker(self, message: WorkerReport) -> None:
        """Reports a report of the worker that changes no phase."""
        match message:
            case LogChanged(state=log_state):
                self.log_changed(log_state)
            case ProcessesKilled(kills=kills):
                self.kills(kills, "The task continues")
            case HealthChanged(state=health_state):
                self._health_changed(health_state)

    def _health_changed(self, state: HealthState) -> None:
        """Reports a change of the task's health."""
        self.health = state.status
        pace = self._health_pace
        if not (state.restarts or pace.allows(time.monotonic())):
            return
        text = "Health check: healthy"
        if state.status == records.UNHEALTHY:
            text = f"Health check: unhealthy ({texts.cause(state)})"
        if state.restarts:
            text = f"{text}; the task is ended, so that its restart policy applies"
        if pace.skipped:
            text = f"{text}; {pace.skipped} changes before have no event"
            pace.skipped = 0
        level = logging.WARNING if state.status == records.UNHEALTHY else logging.INFO
        _log.log(level, "health of the task changed", extra={**self.keys, "reason": text})
        self._publish(text, state.at_ns)

    def log_changed(self, state: LogState) -> None:
        """Reports a log whose reader stopped or returned."""
        text = log_events.sentence(state)
        if text:
            level = logging.INFO if state.state == protocol.READING else logging.WARNING
            keys = {**self.keys, "stream": state.stream, "reason": text}
            _log.log(level, "reader of the task's log changed", extra=keys)
            self._publish(text)

    def _publish(self, text: str, at_ns: int = 0) -> None:
        event = TaskEvent.now(self._task, text)
        if at_ns:  # may be past: a worker keeps reports while no plugin is connected
            event = dataclasses.replace(event, timestamp_ns=at_ns)
        tell(self._events, Publish(event=event))
