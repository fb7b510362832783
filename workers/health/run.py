"""One run of a health check's command: an exec in the task's shim, from Exec to Delete.

The exec is deleted before its output is used: the shim answers Delete after its last write to the
FIFO. The Wait is sent after Start, because the shim answers the Wait of an exec that cannot be
started with status 0.
"""

from __future__ import annotations

from proto.errors import Code
from workers.health import processes
from workers.health.exec_calls import started_pid
from workers.shim import ttrpc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from proto.errors import DriverError
    from workers.health.exec_calls import ExecCalls
    from workers.health.output import Output
    from workers.health.records import HealthCheck
    from workers.loop import Loop, Timer

_START_S = 30.0
"""Docker's limit for the start of a check; the start does not count as the check's time."""
_KILL_AGAIN_S = 5.0
_MOST_DETAILS = 512
"""Longest text of the shim that is kept: the text repeats the job's command."""
_PAUSED = ("paused", "pausing")
_AGAIN_S, _MOST_REFUSALS = 0.2, 50
_GONE = (Code.NOT_FOUND, Code.UNAVAILABLE)


class Result:
    """The end of a run.

    Args:
        code: exit code; None if the command did not end by itself.
        problem: why the command did not end by itself.
        output: begin of the output.
    """

    def __init__(self, code: int | None, problem: str, output: bytes) -> None:
        self.code = code
        self.problem = problem
        self.output = output


class Run:
    """Runs the command once.

    Args:
        loop: the worker's loop.
        calls: the calls to the shim.
        container_pid: pid of the task's first process.
        output: the FIFO of the task's checks, and `path`, its path for the shim.
        done: called once: with the result, or with None if the shim was lost during the run. Until
            then no other run may begin.
    """

    def __init__(
        self,
        loop: Loop,
        calls: ExecCalls,
        container_pid: int,
        output: tuple[Output, str],
        done: Callable[[Result | None], None],
    ) -> None:
        self._loop = loop
        self._calls = calls
        self._container_pid = container_pid
        self._output, self._path = output
        self._done = done
        self._process = b""
        self._timeout_s = 0.0
        self._timer: Timer | None = None
        self._pid = 0
        self._late = ""
        self._cleaned = False
        self._refusals = 0
        self._abandoned = False
        self._ended = False

    def begin(self, check: HealthCheck) -> None:
        """Starts the command."""
        self._process = check.process.encode()
        self._timeout_s = check.timeout_ms / 1000
        self._output.begin()
        self._create()

    def clean(self) -> None:
        """Ends the exec of a killed worker, if the shim has one; `done` gets None."""
        self._calls.state(self._on_found)

    def abandon(self) -> None:
        """Stops the timer at the end of the task, which ends the command."""
        self._abandoned = True
        self._stop_timer()

    def _create(self) -> None:
        self._limit(_START_S, f"the command has not started within {_START_S:g} s")
        self._calls.create(self._path, self._process, self._on_created)

    def _on_created(self, _: bytes, error: DriverError | None) -> None:
        if error is None:
            self._calls.start(self._on_started)
        elif error.code is Code.ALREADY_EXISTS and not self._cleaned:
            self.clean()
        else:
            self._end(None, error)

    def _on_started(self, payload: bytes, error: DriverError | None) -> None:
        if error is not None:
            self._delete(None, error)
            return
        self._pid = started_pid(payload)
        processes.set_oom_score(self._pid, self._container_pid)
        if self._late:  # the limit of the start has passed
            self._kill()
        else:
            self._limit(self._timeout_s, f"no end within {self._timeout_s:g} s")
        self._calls.wait(self._on_ended)

    def _limit(self, seconds: float, problem: str) -> None:
        self._stop_timer()
        if not self._abandoned:
            self._timer = self._loop.later(seconds, lambda: self._ask_state(seconds, problem))

    def _ask_state(self, seconds: float, problem: str) -> None:
        """Kills the command after its time, unless the task is paused."""
        self._timer = None

        def answered(payload: bytes, error: DriverError | None) -> None:
            if error is None and ttrpc.state_answer(payload)[1] in _PAUSED:
                self._limit(seconds, problem)
            elif not self._ended:
                self._late = problem
                self._kill()

        self._calls.task_state(answered)

    def _kill(self) -> None:
        """Kills the command, and repeats: the runtime may fail, and a process may fork."""
        self._stop_timer()
        if self._abandoned:
            return
        processes.kill(self._pid, self._container_pid)
        self._calls.kill(_ignore)
        self._timer = self._loop.later(_KILL_AGAIN_S, self._kill)

    def _on_ended(self, payload: bytes, error: DriverError | None) -> None:
        if self._late:
            processes.kill(self._pid, self._container_pid)
        code = None if error is not None or self._late else ttrpc.wait_answer(payload)[0]
        self._delete(code, error)

    def _delete(self, code: int | None, failure: DriverError | None) -> None:
        self._ended = True
        self._stop_timer()
        if failure is not None and failure.code is Code.UNAVAILABLE:
            self._end(code, failure)
            return
        self._calls.delete(lambda _, error: self._end(code, failure or _lost(error)))

    def _end(self, code: int | None, failure: DriverError | None) -> None:
        self._ended = True
        self._stop_timer()
        output = self._output.end()
        if failure is not None and failure.code is Code.UNAVAILABLE:
            self._done(None)
            return
        problem = self._late
        if failure is not None and not problem:
            problem = f"the command cannot run: {failure.details[:_MOST_DETAILS]}"
        self._done(Result(code, problem, output))

    def _on_found(self, payload: bytes, error: DriverError | None) -> None:
        if error is not None:
            self._on_cleaned(b"", error)
            return
        self._pid, status = ttrpc.state_answer(payload)
        if status == "running":
            self._kill()
            self._calls.wait(self._on_left_ended)
        else:
            self._calls.delete(self._on_deleted)

    def _on_deleted(self, payload: bytes, error: DriverError | None) -> None:
        """Repeats after a refusal: the Start of the killed worker can still go on in the shim."""
        if error is None or error.code in _GONE or self._refusals == _MOST_REFUSALS:
            self._on_cleaned(payload, error)
        else:
            self._refusals += 1
            self._loop.later(_AGAIN_S, self.clean)

    def _on_left_ended(self, _payload: bytes, _error: DriverError | None) -> None:
        processes.kill(self._pid, self._container_pid)
        self._stop_timer()
        self._calls.delete(self._on_cleaned)

    def _on_cleaned(self, _: bytes, _error: DriverError | None) -> None:
        self._cleaned = True
        self._pid = 0
        if self._process and self._calls.connected:
            self._create()
        else:
            self._done(None)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _lost(error: DriverError | None) -> DriverError | None:
    """Returns the error if the shim was lost; other failures of Delete do not matter."""
    return error if error is not None and error.code is Code.UNAVAILABLE else None


def _ignore(_: bytes, _error: DriverError | None) -> None:
    """Takes the answer of a Kill: the command may have ended, and the Kill is repeated."""
