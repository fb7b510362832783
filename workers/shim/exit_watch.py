"""Watch of a task at the shim: the outstanding Wait, and the end of a task without a report."""

from __future__ import annotations

import os
import time

from proto.errors import Code, DriverError
from workers import c_modules, cgroups, identity
from workers.log import log
from workers.loop import READ
from workers.oom import OomWatch
from workers.protocol import LOST_CODE, ExitRecord, Sample
from workers.shim import ttrpc
from workers.shim.client import Shim

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.loop import Loop, Timer
    from workers.protocol import ShimTarget

    Seen = Callable[[int, str, DriverError | None], None]

_ORPHAN_S = 5.0
"""Time that containerd gets to clean up after a dead shim, before the worker kills the orphan."""

_KILLED_S = 5.0
_KILLED_CODE = 128 + c_modules.SIGKILL
_RUNTIME_FAILED = ("runc did not terminate", "crun did not terminate")
"""Texts of a shim whose runtime could not be run."""
_AGAIN_S = 1.0
_KILL_S = 2.0
"""Time that shim and runtime get for SIGKILL, before the worker kills the first process itself."""
_REPORT_S, _UNKNOWN_S = 5.0, 295.0
"""Time that a shim gets to report an exit, and more time if the kernel does not tell the exit code.
A shim of several tasks is late while it creates one."""


class Watch:
    """Watches a task from the first State to the exit.

    Args:
        loop: the worker's loop.
        target: the shim and the container.
        on_oom: called with the number of the task's processes that the kernel has killed for lack
            of memory while the task goes on.
        on_exit: called once with the exit; never before the shim's first answer to State. An
            earlier failure is the answer to the request for the watch.

    Raises:
        DriverError: cannot connect to the shim.
    """

    def __init__(
        self,
        loop: Loop,
        target: ShimTarget,
        on_oom: Callable[[int], None],
        on_exit: Callable[[ExitRecord], None],
    ) -> None:
        self.target = target
        self.seen = False
        self.ended = False
        self.readings: cgroups.Readings | None = None
        self._loop = loop
        self._on_exit = on_exit
        self._on_oom = on_oom
        self._oom: OomWatch | None = None
        self._killed = self._killed_by_worker = False
        self._refused: DriverError | None = None
        self._pidfd = -1
        self._code: int | None = None
        self._process: identity.Identity | None = None
        self._timer: Timer | None = None
        self._silence: Timer | None = None
        self._tries = 0
        self._shim = Shim(loop, target, self._on_lost)

    @property
    def shim(self) -> Shim:
        """The present connection to the shim."""
        return self._shim

    def begin(self, seen: Seen) -> None:
        """Sends Wait and State; calls `seen` with pid and status, or with an error."""
        self._shim.wait(self._on_wait)
        self.ask_state(seen)

    def ask_state(self, seen: Seen) -> None:
        """Asks the shim for pid and status; calls `seen` with the answer."""
        self._shim.state(lambda payload, error: self._on_state(payload, error, seen))

    def kill(
        self, number: int, *, everyone: bool, done: Callable[[DriverError | None], None]
    ) -> None:
        """Lets the runtime signal the task: only the runtime surely knows all processes."""
        self._killed |= number == c_modules.SIGKILL
        open_calls = [done]

        def answered(_: bytes, error: DriverError | None) -> None:
            if open_calls:
                done(None if error is not None and self._signal(number, error) else error)
                open_calls.clear()

        def silent() -> None:
            error = DriverError(f"the shim has not answered for {_KILL_S:g} s")
            if open_calls and self._signal(number, error):
                answered(b"", None)

        self._shim.kill(number, everyone=everyone, answer=answered)
        if number == c_modules.SIGKILL:
            self._loop.later(_KILL_S, silent)

    def _signal(self, number: int, refused: DriverError) -> bool:
        """Signals the first process without the shim; False if not signalled.

        A signal other than SIGKILL is sent only if the runtime could not be run.

        The bundle may be gone: containerd 1.4 removes bundles that the metadata does not have. With
        gVisor the first process is not the task's, so other signals than SIGKILL are not sent.
        """
        runs_itself = any(words in refused.details for words in _RUNTIME_FAILED)
        if refused.code is not Code.INTERNAL or not (runs_itself or number == c_modules.SIGKILL):
            return False
        try:
            c_modules.pidfd_send_signal(self._pidfd, number)
        except OSError:  # the process has ended, or has no pidfd
            return False
        self._killed_by_worker |= number == c_modules.SIGKILL
        log(
            f"worker: container_id={self.target.container_id} signal {number} sent without the"
            f" runtime: {refused}"
        )
        return True

    def sample(self) -> Sample:
        """Reads the task's cgroup; all values are unknown if the cgroup was not found."""
        if self._oom is not None:
            self._oom.sampled()
        return self.readings.sample() if self.readings else Sample(t_ns=time.time_ns())

    def close(self) -> None:
        """Ends the watch; nothing is reported from now on."""
        self.ended = True
        self._shim.close()
        self._release()

    def _on_state(self, payload: bytes, error: DriverError | None, seen: Seen) -> None:
        error = error or self._refused
        if self.ended:
            seen(0, "stopped", None)
            return
        if error is not None:
            seen(0, "", error)
            return
        try:
            pid, status = ttrpc.state_answer(payload)
        except DriverError as malformed:
            seen(0, "", malformed)
            return
        self.seen = True
        self._tries = 0
        if pid and self._pidfd < 0:
            self._attach(pid)
        seen(pid, status, None)

    def _attach(self, pid: int) -> None:
        """Opens a pidfd and the cgroup's files, which stay valid without the shim.

        The shim reaps the process and has just named the pid, so no other process has the pid yet.
        If the process has ended meanwhile, Wait answers and the pidfd is never used.
        """
        try:
            process = identity.identify(pid)
            pidfd = identity.open_pidfd(process) if process else None
            if pidfd is not None:
                self._pidfd, self._process = pidfd, process
                self._loop.watch(pidfd, READ, self._on_process_end)
            if self.target.cgroup:
                self.readings = cgroups.locate(pid)
                self._oom = OomWatch(self._loop, self.readings, self._on_oom)
        except OSError as error:
            log(
                f"worker: container_id={self.target.container_id} no cgroup readings of pid {pid}:"
                f" {error}"
            )

    def _on_wait(self, payload: bytes, error: DriverError | None) -> None:
        if error is None:
            code, at_ns = ttrpc.wait_answer(payload)
            self._end(code, at_ns or time.time_ns(), "")
        elif self._shim.connected:
            self._refused = error
            if self.seen:
                self._lose(str(error))

    def _on_process_end(self, _events: int) -> None:
        """Limits the time for the shim's report: a shim or a runtime that hangs reports nothing."""
        at_ns = time.time_ns()
        self._loop.forget(self._pidfd)
        if self.target.host_kernel and self._process is not None:
            # A shim that hangs has not read the code. Only later kernels show a code after that.
            self._code = identity.waiting_exit_code(self._process)
        self._silence = self._loop.later(_REPORT_S, lambda: self._end_unreported(at_ns))

    def _end_unreported(self, at_ns: int) -> None:
        code = self._code
        if code is None and self.target.host_kernel:
            code = identity.exit_code(self._pidfd)
        if code is None and self._killed_by_worker:
            code = _KILLED_CODE
        if code is not None:
            log(
                f"worker: container_id={self.target.container_id} the shim has not reported the"
                f" exit for {_REPORT_S:g} s, exit code {code} is the kernel's"
            )
            self._end(code, at_ns, "")
            return
        reason = (
            "the task's first process has ended, and the containerd shim of the task has not"
            f" reported the exit for {_REPORT_S + _UNKNOWN_S:g} s"
        )
        self._silence = self._loop.later(_UNKNOWN_S, lambda: self._end_lost(reason))

    def _on_lost(self, reason: str) -> None:
        """Connects again once, because the shim may be alive and only the connection lost."""
        if self.ended or not self.seen:
            return
        self._tries += 1
        if self._tries > 1:
            self._lose(reason)
            return
        self._connect_again(reason)

    def _connect_again(self, reason: str) -> None:
        if self.ended:
            return
        try:
            self._shim = Shim(self._loop, self.target, self._on_lost)
        except DriverError as error:
            if error.code is Code.EXHAUSTED:  # of this worker; says nothing about the shim
                self._timer = self._loop.later(_AGAIN_S, lambda: self._connect_again(reason))
            else:
                self._timer = None
                self._lose(error.details or reason)
            return
        self._timer = None
        self.begin(self._on_seen_again)

    def _on_seen_again(self, _pid: int, _status: str, error: DriverError | None) -> None:
        if error is not None and not self.ended and self._shim.connected:
            self._lose(str(error))

    def _lose(self, reason: str) -> None:
        """Ends the watch of a task without a shim, after the end of the task's first process."""
        if self.ended or self._timer is not None:
            return
        reason = f"the containerd shim of the task ended without reporting the exit: {reason}"
        if self._pidfd < 0:
            self._end_lost(reason)
            return
        self._loop.watch(self._pidfd, READ, lambda _: self._end_lost(reason))
        self._timer = self._loop.later(_ORPHAN_S, lambda: self._kill_orphan(reason))

    def _kill_orphan(self, reason: str) -> None:
        reason += "; the task's first process was still running and was killed"
        try:
            c_modules.pidfd_send_signal(self._pidfd, c_modules.SIGKILL)
        except ProcessLookupError:
            self._end_lost(reason)
            return
        self._loop.watch(self._pidfd, READ, lambda _: self._end_lost(reason))
        self._timer = self._loop.later(
            _KILLED_S, lambda: self._end_lost(f"{reason}, but has not ended")
        )

    def _end_lost(self, reason: str) -> None:
        self._end(LOST_CODE, time.time_ns(), reason)

    def _end(self, code: int, at_ns: int, reason: str) -> None:
        if self.ended:
            return
        self.ended = True
        oom_kills = self.readings.oom_kills() if self.readings else 0
        outlived = self._oom.counted if self._oom else 0
        oom_killed = code == _KILLED_CODE and not self._killed and oom_kills > outlived
        self._shim.close_when_idle()
        self._release()
        self._on_exit(
            ExitRecord(
                code=code,
                at_ns=at_ns,
                oom_kills=oom_kills,
                oom_killed=oom_killed,
                lost=bool(reason),
                reason=reason,
            )
        )

    def _release(self) -> None:
        for timer in (self._timer, self._silence):
            if timer is not None:
                timer.cancel()
        if self._pidfd >= 0:
            self._loop.forget(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        if self._oom is not None:
            self._oom.close()
            self._oom = None
        if self.readings is not None:
            self.readings.close()
            self.readings = None
