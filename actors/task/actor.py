"""TaskActor: the state machine of a task, from the start to the removal."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, assert_never

from actors.asyncio_bridge import Reply, Work, spawn, tell
from actors.lifecycle import go_takeover
from actors.lifecycle.recover import recover
from actors.lifecycle.start import start
from actors.loop_actor import LoopActor
from actors.model import signal_names
from actors.model.nomad import ExitResult, TaskConfig
from actors.task import phases
from actors.task.messages import (
    Begin,
    Destroy,
    Destroyed,
    Drained,
    Exited,
    HealthChanged,
    Inspect,
    Locate,
    LogChanged,
    ProcessesKilled,
    Recover,
    Signal,
    SignalFailed,
    Started,
    Stop,
    StopDeadline,
    TaskGone,
    TaskMessage,
    Wait,
    WorkerLost,
    WorkerRestored,
)
from actors.task.phases import ALIVE, Event, Phase
from actors.task.removal import remove_task, remove_unrecovered
from actors.task.reports import TaskReports
from actors.task.status import exit_result, not_found, start_error, task_status
from actors.task.stop import StopSequence, deliver
from actors.task.waiters import Waiters
from actors.task.worker_connection import WorkerConnection
from actors.task.worker_replacement import WorkerReplacement
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any, TypeVar

    import pykka

    from actors.lifecycle.running import RunningTask, Services
    from actors.processes.worker_link import WorkerLink
    from workers.protocol import ExitRecord

    T = TypeVar("T")

_REMOVE_AGAIN_S = 10.0
_log = logging.getLogger(__name__)


class TaskActor(LoopActor):
    """Owner of a task's phase, of the link to the worker, and of all requests that wait.

    The actor never blocks: slow work runs as coroutines on the event loop, and the result is a
    message. The actor reports the task's end to the Supervisor, which stops the actor.
    """

    def __init__(
        self, services: Services, task: TaskConfig, supervisor: pykka.ActorRef[Any], phase: Phase
    ) -> None:
        super().__init__()
        self._services = services
        self._task = task
        self._reports = TaskReports(task, services.events)
        self._supervisor = supervisor
        self._phase = phase
        self._running: RunningTask | None = None
        self._exit: ExitRecord | None = None
        self._drained = False
        self._recovers = False
        self._beginning: Work | None = None
        self._waiters = Waiters[ExitResult]()
        self._stoppers = Waiters[None]()
        self._destroyers = Waiters[None]()
        self._log_ends = go_takeover.HeldLogs()
        self._stop_sequence = StopSequence(self._send, self._call_later)
        self._worker = WorkerConnection(
            services.loop, self.actor_ref, lambda: self._phase is Phase.GONE
        )
        self._replacement = WorkerReplacement(self._reports, self._listen, self._worker.hand_over)

    def on_stop(self) -> None:
        """Closes the link to the worker."""
        self._worker.close()

    def on_receive(self, message: TaskMessage) -> None:
        """Handles one message. An unexpected error fails the request and never ends the actor."""
        try:
            self._handle(message)
        except Exception as error:  # noqa: BLE001 - see above
            if not isinstance(error, DriverError):
                _log.exception("unexpected failure of a task actor", extra=self._reports.keys)
            reply = getattr(message, "reply", None)
            if isinstance(reply, Reply):
                reply.fail(error)

    def _handle(self, message: TaskMessage) -> None:
        if self._phase is Phase.GONE and isinstance(message, Wait | Inspect | Signal | Locate):
            raise not_found(self._task.id)
        match message:
            case Begin():
                self._begin_start(message)
            case Recover():
                self._begin_recover(message)
            case Started():
                self._started(message)
            case Wait(reply=reply):
                self._wait(reply)
            case Stop():
                self._stop_task(message)
            case StopDeadline(step=step):
                self._stop_deadline(step)
            case SignalFailed(error=error):
                self._reports.failed("signal not sent to task", error)
            case Exited(exit=exit_record):
                self._exited(exit_record)
            case Drained(complete=complete):
                self._drained = True
                self._log_ends.drained(complete=complete)
                self._reports.logs_drained(complete=complete)
            case LogChanged() | ProcessesKilled() | HealthChanged():
                self._reports.of_worker(message)
            case Destroy():
                self._destroy(message)
            case Destroyed(error=error):
                self._destroyed(error)
            case Inspect(reply=reply):
                health = self._reports.health
                reply.answer(
                    task_status(self._task, self._phase, self._running, self._exit, health)
                )
            case Signal():
                self._signal(message)
            case Locate(reply=reply):
                reply.answer(self._running if self._phase in ALIVE else None)
            case WorkerLost(link=link):
                self._worker_lost(link)
            case WorkerRestored():
                self._worker_restored(message)
            case _:
                assert_never(message)

    # --- start and recover

    def _begin_start(self, message: Begin) -> None:
        self._reports.step("starting task")
        work = start(self._services, self._task, message.options, message.logs)
        self._begin(work, message.reply)

    def _begin_recover(self, message: Recover) -> None:
        self._recovers = True
        self._reports.step("recovering task")
        recovery = recover(self._services, self._task, message.version, message.driver_state)

        async def work() -> tuple[RunningTask, None]:
            return await recovery, None

        self._begin(work(), message.reply)

    def _begin(self, work: Coroutine[Any, Any, tuple[RunningTask, T]], reply: Reply[T]) -> None:
        def done(result: tuple[RunningTask, T] | None, error: BaseException | None) -> None:
            if result is not None:
                self._reports.started(result[0], recovered=self._recovers)
            self._worker.hand_over(Started(task=result and result[0], error=error))
            reply.settle(result and result[1], None if result else start_error(error))

        self._beginning = spawn(self._services.loop, work, done)

    def _started(self, message: Started) -> None:
        self._beginning = None
        if message.task is None:
            self._not_started(message.error)
            return
        self._running = message.task
        self._exit = message.task.exit
        self._advance(Event.STARTED)
        if message.task.link is not None:
            self._listen(message.task.link)
        if self._phase is Phase.DESTROYING:
            self._remove()
        elif self._exit is not None:
            self._exited(self._exit)

    def _not_started(self, error: BaseException | None) -> None:
        if error is not None:
            text = "task not recovered" if self._recovers else "task not started"
            self._reports.failed(text, error)
        self._advance(Event.NOT_RECOVERED if self._recovers else Event.START_FAILED)
        if self._phase is Phase.DESTROYING:
            self._remove()
        else:
            self._gone()

    def _listen(self, link: WorkerLink) -> None:
        self._log_ends.hold(self._running, link)
        self._reports.health = link.health or self._reports.health
        self._worker.listen(link)

    # --- the end of the process

    def _wait(self, reply: Reply[ExitResult]) -> None:
        if self._phase is Phase.EXITED and self._exit is not None:
            reply.answer(exit_result(self._exit))
        else:
            self._waiters.add(reply)

    def _exited(self, exit_record: ExitRecord) -> None:
        first = self._exit is None or self._phase in ALIVE
        stopping = self._phase is Phase.STOPPING
        self._exit = self._exit or exit_record
        self._advance(Event.EXITED)
        if not first:
            return
        self._log_ends.exited()
        result = exit_result(self._exit)
        self._reports.ended(result, self._exit)
        if stopping:
            self._reports.stop_ended(None)
        self._waiters.answer(result)
        self._stoppers.answer(None)

    # --- stop and signal

    def _stop_task(self, message: Stop) -> None:
        if self._phase is Phase.EXITED or self._phase is Phase.GONE:
            self._reports.step("stop requested for a task that has ended")
            message.reply.answer(None)
            return
        image_signal = self._running.state.stop_signal if self._running else ""
        number = signal_names.stop_signal(message.signal, image_signal)
        self._advance(Event.STOP)
        self._reports.stop_requested(signal=signal_names.name(number), timeout_s=message.timeout_s)
        if self._phase is Phase.ABORTING:
            self._abort()
            self._destroyers.add(message.reply)
            return
        self._stoppers.add(message.reply)
        self._stop_sequence.start(number, message.timeout_s)

    def _stop_deadline(self, step: int) -> None:
        if self._phase is not Phase.STOPPING:
            return
        _log.info(
            "task still runs after its stop signal", extra={**self._reports.keys, "step": step}
        )
        error = self._stop_sequence.advance(step)
        if error is not None:
            self._reports.stop_ended(error)
            self._stoppers.fail(error)

    def _call_later(self, seconds: float, step: int) -> None:
        message = StopDeadline(step=step)
        self._services.loop.call_later(seconds, tell, self.actor_ref, message)

    def _signal(self, message: Signal) -> None:
        number = signal_names.number(message.signal)
        if self._phase not in ALIVE:
            raise DriverError(
                "cannot send a signal to the task: the task does not run", code=Code.PRECONDITION
            )
        if number == 0:  # kill(2) with signal 0 only checks that the process exists
            message.reply.answer(None)
        else:
            self._deliver(number, message.reply.settle, stops=False)

    def _send(self, number: int) -> None:
        ref = self.actor_ref

        def done(_: None, error: BaseException | None) -> None:
            if error is not None:
                tell(ref, SignalFailed(error=error))

        self._deliver(number, done, stops=True)

    def _deliver(
        self, number: int, done: Callable[[None, BaseException | None], object], *, stops: bool
    ) -> None:
        assert self._running is not None  # noqa: S101
        link = self._worker.link
        work = deliver(self._running, link, self._task, number, self._reports, stops=stops)
        spawn(self._services.loop, work, done)

    # --- destroy

    def _destroy(self, message: Destroy) -> None:
        if self._phase is Phase.GONE:
            self._destroy_gone(message.reply)
            return
        if self._phase in ALIVE and not message.force:
            raise DriverError(
                "cannot destroy running task",
                resolution="stop the task first, or force the removal",
                code=Code.PRECONDITION,
            )
        before = self._phase
        self._advance(Event.DESTROY)
        self._reports.step("removal of task requested", force=message.force)
        self._destroyers.add(message.reply)
        if self._phase is Phase.ABORTING:
            self._abort()
        elif before is not Phase.DESTROYING:
            self._remove()

    def _destroy_gone(self, reply: Reply[None]) -> None:
        """Answers at once, but first removes the objects of a task that could not be recovered."""
        if not self._recovers or self._running is not None:
            reply.answer(None)
            return
        work = remove_unrecovered(self._services, self._task)
        spawn(self._services.loop, work, reply.settle)

    def _abort(self) -> None:
        if self._beginning is not None:
            self._reports.step("start of task cancelled")
            self._beginning.cancel()

    def _remove(self) -> None:
        if self._running is None:
            work = remove_unrecovered(self._services, self._task)
        else:
            ended = self._exit is not None
            work = remove_task(
                self._task, self._running, self._worker.link, ended=ended, drained=self._drained
            )
        ref = self.actor_ref
        spawn(self._services.loop, work, lambda _, error: tell(ref, Destroyed(error=error)))

    def _destroyed(self, error: BaseException | None) -> None:
        if error is None:
            self._advance(Event.DESTROYED)
            self._gone()
            return
        self._advance(Event.DESTROY_FAILED)
        self._reports.failed("task not removed", error)
        self._destroyers.fail(error)
        if isinstance(error, DriverError) and error.recoverable:
            self._remove_later()

    def _remove_later(self) -> None:
        """Requests the removal again after a pause: Nomad does not repeat a failed DestroyTask."""
        ref = self.actor_ref

        def again() -> None:
            reply: Reply[None] = Reply()
            # The log reports a failure; no caller waits for this reply.
            reply.future.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            tell(ref, Destroy(force=True, reply=reply))

        self._services.loop.call_later(_REMOVE_AGAIN_S, again)

    def _gone(self) -> None:
        self._log_ends.release()
        self._destroyers.answer(None)
        self._stoppers.answer(None)
        self._waiters.fail(not_found(self._task.id))
        # The Supervisor stops this actor: only the Supervisor knows that no request is on the way.
        tell(self._supervisor, TaskGone(task_id=self._task.id, ref=self.actor_ref))

    # --- the death of the worker

    def _worker_lost(self, link: WorkerLink) -> None:
        if link is self._worker.link and self._running is not None and self._needs_worker():
            self._worker.link = None
            self._replacement.lost(self._running)

    def _worker_restored(self, message: WorkerRestored) -> None:
        if message.link is not None:
            self._replacement.restored(message.link)
        elif message.error is not None and self._running is not None and self._needs_worker():
            self._replacement.failed(self._running, message.error)

    def _needs_worker(self) -> bool:
        """Returns whether the task runs, or lines of the ended task are not yet collected."""
        return self._phase in ALIVE or (self._phase is Phase.EXITED and self._log_ends.open)

    # --- phase

    def _advance(self, event: Event) -> None:
        self._phase = phases.advance(self._phase, event)
