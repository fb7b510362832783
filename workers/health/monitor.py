"""Health checks of one task: begins each check, reports changes, and ends an unhealthy task.

A check begins after a pause from the end of the check before, so checks never overlap. No thread
and no process of the driver is used; between two checks the worker sleeps.

A failure counts only if the task still runs a moment later: the kernel kills a check before the
end of its task is reported, and a paused task answers no check.
"""

from __future__ import annotations

import os
import time

import msgpack

from proto.errors import Code, DriverError
from workers import c_modules, exit_record, identity, protocol
from workers.health import texts
from workers.health.exec_calls import ExecCalls
from workers.health.output import Output
from workers.health.records import HEALTH_FIFO, HEALTH_STATE, UNHEALTHY, HealthCheck, HealthState
from workers.health.run import Run
from workers.health.status import Status
from workers.log import log
from workers.protocol import ExitRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from workers.control import Connection
    from workers.health.run import Result
    from workers.loop import Loop, Timer
    from workers.protocol import WorkerSpec
    from workers.shim.exit_watch import Watch

_SETTLE_S = 0.2
_KILL_AGAIN_S = 10.0
_MOST_UNREPORTED = 5
_MAX_CHECK_BYTES = 4 << 20


class Monitor:
    """Runs a task's checks from the watch to the end of the task.

    Args:
        loop: the worker's loop.
        spec: spec of the worker.
        directory: descriptor of the task's state directory.
        watch: the watch of the task.
        check: the task's check.
        connections: returns the connections of plugins.

    Raises:
        DriverError: the state of an earlier worker cannot be read.
        OSError: the FIFO cannot be created.
    """

    def __init__(
        self,
        loop: Loop,
        spec: WorkerSpec,
        directory: int,
        watch: Watch,
        check: HealthCheck,
        connections: Callable[[], Iterable[Connection]],
    ) -> None:
        self._loop = loop
        self._spec = spec
        self._directory = directory
        self._watch = watch
        self._pid = 0
        self._check = check
        self._connections = connections
        self._unreported: list[HealthState] = []
        self._timer: Timer | None = None
        self._run: Run | None = None
        self._has_begun = self._stopped = False
        self._begun_s = 0.0
        fields = exit_record.read(spec.dir, HEALTH_STATE)
        self._last = HealthState.from_wire(fields) if fields else None
        self._status = Status(check, 0.0, self._last.status if self._last else "")
        self._output = Output(loop, directory)

    @property
    def status(self) -> str:
        """The task's present status."""
        return self._status.status

    def begin(self, pid: int) -> None:
        """Begins the checks; a new worker first ends the check of a killed worker.

        Args:
            pid: pid of the task's first process.
        """
        if self._has_begun:
            return
        self._has_begun = True
        self._pid = pid
        self._status.started_s = time.monotonic() - _age_s(pid)
        if self._last is not None and self._last.restarts:
            self._end_task()
        elif self._output.is_new:
            self._schedule()
        else:
            self._new_run().clean()

    def greet(self) -> None:
        """Reports the changes that no plugin has received."""
        connections = [peer for peer in self._connections() if peer.knows_logs]
        if not connections:
            return
        for state in self._unreported:
            for connection in connections:
                connection.send({"event": protocol.HEALTH, **state.to_wire()})
        self._unreported.clear()

    def stop(self) -> None:
        """Begins no more checks: the task is being stopped. A running check goes on to its end."""
        self._stopped = True

    def exit(self, record: ExitRecord) -> ExitRecord:
        """Closes; returns the exit of the task, a failure if the checks have ended the task."""
        self.close()
        if self._last is None or not self._last.restarts or record.lost:
            return record
        fields = record.to_wire()
        fields.update(code=record.code or 1, reason=texts.reason_of_exit(self._last))
        return ExitRecord.from_wire(fields)

    def close(self) -> None:
        """Ends the checks; answers of the shim have no effect from now on."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._run is not None:
            self._run.abandon()
        self._output.close()

    def _new_run(self) -> Run:
        output = self._output, f"{self._spec.dir}/{HEALTH_FIFO}"
        calls = ExecCalls(self._watch.shim, self._watch.target.container_id)
        self._run = Run(self._loop, calls, self._pid, output, self._on_result)
        return self._run

    def _schedule(self) -> None:
        if not self._stopped:
            pause_s = self._status.pause_s(time.monotonic())
            self._timer = self._loop.later(pause_s, self._begin_check)

    def _begin_check(self) -> None:
        if not self._stopped:
            self._begun_s = time.monotonic()
            self._new_run().begin(self._check)

    def _on_result(self, result: Result | None) -> None:
        self._run = None
        if self._stopped:
            return
        if result is None:
            self._schedule()
        elif result.code == 0:
            self._take(result)
        else:
            self._timer = self._loop.later(_SETTLE_S, lambda: self._ask_state(result))

    def _ask_state(self, result: Result) -> None:
        def answered(_pid: int, status: str, error: DriverError | None) -> None:
            if self._stopped:
                return
            if error is None and status == "running":
                self._take(result)
            else:
                self._schedule()

        self._watch.ask_state(answered)

    def _take(self, result: Result) -> None:
        changed = self._status.take(failed=result.code != 0, begun_s=self._begun_s)
        if changed:
            self._change(result)
        if self._last is not None and self._last.restarts:
            self._end_task()
        else:
            self._schedule()

    def _change(self, result: Result) -> None:
        status = self._status.status
        self._last = HealthState(
            status=status,
            code=result.code,
            problem=result.problem,
            output=result.output.decode(errors="replace"),
            at_ns=time.time_ns(),
            failures=self._status.failures,
            restarts=self._check.restarts and status == UNHEALTHY,
        )
        self._keep(self._last)
        self._unreported.append(self._last)
        del self._unreported[:-_MOST_UNREPORTED]
        self.greet()

    def _keep(self, state: HealthState) -> None:
        """Writes the state for the next worker of the task. Without space the state is lost."""
        try:
            file = exit_record.ReservedFile(self._directory, HEALTH_STATE)
            file.write(state.to_wire())
        except (DriverError, OSError) as error:
            log(f"worker: container_id={self._spec.name} cannot write the health: {error}")

    def _end_task(self) -> None:
        """Ends the task as a stop does: the stop signal, and SIGKILL after the kill timeout."""
        log(f"worker: container_id={self._spec.name} ends the task: the task is unhealthy")
        self._stopped = True
        self._watch.kill(self._check.signal, everyone=False, done=_ignore)
        self._timer = self._loop.later(self._check.kill_timeout_ms / 1000, self._kill)

    def _kill(self) -> None:
        self._watch.kill(c_modules.SIGKILL, everyone=False, done=_ignore)
        self._timer = self._loop.later(_KILL_AGAIN_S, self._kill)


def load(
    loop: Loop,
    spec: WorkerSpec,
    directory: int,
    watch: Watch,
    connections: Callable[[], Iterable[Connection]],
) -> Monitor | None:
    """Returns the monitor of a task whose state directory has a check; None after a failure."""
    try:
        check = HealthCheck.from_wire(_read_check(directory))
        return Monitor(loop, spec, directory, watch, check, connections)
    except (DriverError, OSError) as error:
        log(f"worker: container_id={spec.name} cannot run health checks: {error}")
        return None


def _read_check(directory: int) -> dict[str, object]:
    """Reads the file with the check.

    Raises:
        DriverError: code CORRUPT, no check.
        OSError: the file cannot be read.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    file = os.open(protocol.HEALTH_CHECK, flags, dir_fd=directory)
    try:
        fields = msgpack.unpackb(os.read(file, _MAX_CHECK_BYTES), raw=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise DriverError(
            "malformed health check", details=str(error), code=Code.CORRUPT
        ) from error
    finally:
        os.close(file)
    if not isinstance(fields, dict):
        raise DriverError("malformed health check", details="not a map", code=Code.CORRUPT)
    return fields


def _age_s(pid: int) -> float:
    """Returns the seconds since the start of a process; 0 if the process is gone."""
    ticks = identity.start_ticks(pid)
    if ticks is None:
        return 0.0
    now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    return max(0.0, now_s - ticks / os.sysconf("SC_CLK_TCK"))


def _ignore(_: DriverError | None) -> None:
    """Takes the answer of a signal: the task may have ended, and SIGKILL is repeated."""
