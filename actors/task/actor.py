"""TaskActor: one task from its start to its last trace."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, assert_never

import pykka

from actors.asyncio_bridge import Reply, spawn, tell
from actors.events import Publish
from actors.lifecycle import go_takeover, teardown
from actors.lifecycle.cgroup import give_back_cgroup
from actors.lifecycle.recover import attach, recover
from actors.lifecycle.retry import Patience
from actors.lifecycle.start import start
from actors.model.nomad import TaskConfig, TaskEvent, TaskState, TaskStatus
from actors.task import log_events, phases, signal_names
from actors.task.messages import (
    Begin,
    Destroy,
    Destroyed,
    Drained,
    Exited,
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
from actors.task.status import exit_result
from actors.task.stop import StopLadder, deliver
from containerd.api import deadlines
from proto.errors import Code, DriverError
from workers import protocol
from workers.protocol import ExitRecord, LogState

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable
    from typing import Any

    from actors.lifecycle.running import RunningTask, Services
    from actors.model.nomad import ExitResult, StartedTask
    from actors.processes.worker_link import WorkerLink
    from proto.frames import Frame

_DRAIN_BUDGET_S = 3.0
_REMOVAL_S = 60.0
_DESTROY_AGAIN_S = 10.0
_RETRY_S = 1.0
_STEADY_S = 60.0
"""A worker that ends sooner is not replaced at once: what ended it may end its successor too."""
_log = logging.getLogger(__name__)


class TaskActor(pykka.ThreadingActor):
    """Owns one task's phase, its link to the worker and everybody who waits for its end.

    Blocks on nothing: what takes time runs as coroutines on the event loop and comes back as a
    message. Stopped by the Supervisor, which it tells when the task is gone.
    """

    use_daemon_thread = True

    def __init__(
        self, services: Services, task: TaskConfig, supervisor: pykka.ActorRef[Any], phase: Phase
    ) -> None:
        super().__init__()
        self._services = services
        self._task = task
        self._supervisor = supervisor
        self._phase = phase
        self._running: RunningTask | None = None
        self._link: WorkerLink | None = None
        self._handed: WorkerLink | None = None
        self._exit: ExitRecord | None = None
        self._drained = False
        self._recovers = False
        self._restored = -_STEADY_S
        self._kills_told = 0
        self._begin: concurrent.futures.Future[Any] | None = None
        self._begin_reply: Reply[StartedTask] | Reply[None] | None = None
        self._waiters: list[Reply[ExitResult]] = []
        self._stoppers: list[Reply[None]] = []
        self._destroyers: list[Reply[None]] = []
        self._held = go_takeover.HeldLogs()
        self._ladder = StopLadder(self._send, self._later)

    def on_stop(self) -> None:
        """Gives up the link, also a link whose message is still in the inbox."""
        if self._handed is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed when the process leaves
                self._services.loop.call_soon_threadsafe(self._give_up, self._handed)

    def on_receive(self, message: TaskMessage) -> None:
        """Handles one message. An unexpected failure becomes this task's, never the actor's end."""
        try:
            self._handle(message)
        except Exception as error:  # noqa: BLE001 - see above
            if not isinstance(error, DriverError):
                _log.exception("task actor", extra={"task_id": self._task.id})
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
            case StopDeadline(rung=rung):
                self._stop_deadline(rung)
            case SignalFailed(error=error):
                _log.info("signal", extra={"task_id": self._task.id, "why": str(error)})
            case Exited(exit=exit_record):
                self._exited(exit_record)
            case Drained(complete=complete):
                self._drained_now(complete=complete)
            case LogChanged(state=state):
                self._log_changed(state)
            case ProcessesKilled(kills=kills):
                self._tell_kills(kills, "The task goes on")
            case Destroy():
                self._destroy(message)
            case Destroyed(error=error):
                self._destroyed(error)
            case Inspect(reply=reply):
                reply.answer(self._status())
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
        self._begin_reply = message.reply
        begun = time.monotonic()

        def done(
            outcome: tuple[RunningTask, StartedTask] | None, error: BaseException | None
        ) -> None:
            self._hand_over(Started(task=outcome and outcome[0], error=error))
            if outcome is None:
                message.reply.fail(_as_error(error))
                return
            _log.info(
                "task started",
                extra={
                    "task_id": self._task.id,
                    "pid": outcome[0].state.pid,
                    "ms": round((time.monotonic() - begun) * 1000),
                },
            )
            message.reply.answer(outcome[1])

        self._begin = spawn(
            self._services.loop,
            start(self._services, self._task, message.options, message.logs),
            done,
        )

    def _begin_recover(self, message: Recover) -> None:
        self._recovers = True

        def done(running: RunningTask | None, error: BaseException | None) -> None:
            self._hand_over(Started(task=running, error=error))
            if running is None:
                message.reply.fail(_as_error(error))
                return
            _log.info("task recovered", extra={"task_id": self._task.id})
            message.reply.answer(None)

        self._begin = spawn(
            self._services.loop,
            recover(self._services, self._task, message.version, message.driver_state),
            done,
        )

    def _started(self, message: Started) -> None:
        self._begin = None
        if message.task is None:
            self._not_started(message.error)
            return
        self._running = message.task
        self._exit = message.task.exit
        self._advance(Event.STARTED)
        if message.task.link is not None:
            self._listen(message.task.link)
        if self._phase is Phase.DESTROYING:
            self._tear_down()
        elif self._exit is not None:
            self._exited(self._exit)

    def _not_started(self, error: BaseException | None) -> None:
        if error is not None:
            what = "task not recovered" if self._recovers else "task did not start"
            why = str(error) or type(error).__name__
            _log.warning(what, extra={"task_id": self._task.id, "why": why})
        self._advance(Event.NOT_RECOVERED if self._recovers else Event.START_FAILED)
        if self._phase is Phase.DESTROYING:
            self._tear_down()
        else:
            self._gone()

    def _listen(self, link: WorkerLink) -> None:
        self._link = link
        if self._running is not None and self._running.from_go_driver:
            self._held.hold(link)
        ref = self.actor_ref

        def heard(frame: Frame | None) -> None:
            match frame:
                case None:
                    tell(ref, WorkerLost(link=link))
                case {"event": "exit"}:
                    tell(ref, Exited(exit=ExitRecord.from_wire(frame)))
                case {"event": "drained"}:
                    tell(ref, Drained(complete=frame.get("complete") is True))
                case {"event": "log"}:
                    tell(ref, LogChanged(state=LogState.from_wire(frame)))
                case {"event": protocol.OOM, "kills": int(kills)}:
                    tell(ref, ProcessesKilled(kills=kills))

        self._services.loop.call_soon_threadsafe(link.listen, heard)

    def _hand_over(self, message: Started | WorkerRestored) -> None:
        """Sends this actor the task's new link. Runs on the loop.

        The actor may stop at any moment. `on_stop` finds a link that was sent before.
        """
        link = message.link if isinstance(message, WorkerRestored) else None
        if isinstance(message, Started) and message.task is not None:
            link = message.task.link
        self._handed = link or self._handed
        if not tell(self.actor_ref, message) and link is not None:
            self._give_up(link)

    def _give_up(self, link: WorkerLink) -> None:
        """Ends a removed task's worker. Of other tasks the worker goes on without this plugin."""
        if self._phase is Phase.GONE and not link.closed:
            spawn(self._services.loop, teardown.end_worker(link), lambda _, __: None)
        else:
            link.drop()

    # --- the end of the process

    def _wait(self, reply: Reply[ExitResult]) -> None:
        if self._phase is Phase.EXITED and self._exit is not None:
            reply.answer(exit_result(self._exit))
        else:
            self._waiters.append(reply)

    def _exited(self, exit_record: ExitRecord) -> None:
        first = self._exit is None or self._phase in ALIVE
        self._exit = self._exit or exit_record
        self._advance(Event.EXITED)
        if not first:
            return
        self._held.release()
        result = exit_result(self._exit)
        _log.info(
            "task ended",
            extra={
                "task_id": self._task.id,
                "exit_code": result.exit_code,
                "oom_killed": result.oom_killed,
            },
        )
        if result.error:
            self._publish(f"Container lost: {result.error}")
        elif result.oom_killed:
            self._publish("The kernel killed the task: out of memory")
        else:
            self._tell_kills(self._exit.oom_kills, f"The task ended with code {result.exit_code}")
        for waiter in self._waiters:
            waiter.answer(result)
        self._waiters.clear()
        for stopper in self._stoppers:
            stopper.answer(None)
        self._stoppers.clear()

    def _tell_kills(self, kills: int, end: str) -> None:
        if kills > self._kills_told:
            self._kills_told = kills
            self._publish(
                f"The kernel killed processes of the task, {kills} so far: out of memory. {end};"
                " give it more (resources.memory), or have it use less"
            )

    def _drained_now(self, *, complete: bool) -> None:
        self._drained = True
        if not complete:
            _log.warning("log FIFO not read to its end by Nomad", extra={"task_id": self._task.id})

    def _log_changed(self, state: LogState) -> None:
        news = log_events.sentence(state)
        if news:
            level = logging.INFO if state.state == protocol.READING else logging.WARNING
            _log.log(level, "log", extra={"task_id": self._task.id, "news": news})
            self._publish(news)

    # --- stop and signal

    def _stop_task(self, message: Stop) -> None:
        if self._phase is Phase.EXITED or self._phase is Phase.GONE:
            message.reply.answer(None)
            return
        image_signal = self._running.state.stop_signal if self._running else ""
        number = signal_names.stop_signal(message.signal, image_signal)
        self._advance(Event.STOP)
        if self._phase is Phase.ABORTING:
            self._abort()
            self._destroyers.append(message.reply)
            return
        self._stoppers.append(message.reply)
        self._ladder.start(number, message.timeout_s)

    def _stop_deadline(self, rung: int) -> None:
        if self._phase is not Phase.STOPPING:
            return
        _log.info("task outlives its stop signal", extra={"task_id": self._task.id, "rung": rung})
        error = self._ladder.climb(rung)
        if error is not None:
            for stopper in self._stoppers:
                stopper.fail(error)
            self._stoppers.clear()

    def _later(self, seconds: float, rung: int) -> None:
        loop, ref = self._services.loop, self.actor_ref
        message = StopDeadline(rung=rung)
        loop.call_soon_threadsafe(loop.call_later, seconds, lambda: tell(ref, message))

    def _signal(self, message: Signal) -> None:
        number = signal_names.number(message.signal)
        if self._phase not in ALIVE:
            raise DriverError("the task does not run, so it gets no signal", code=Code.PRECONDITION)
        reply = message.reply
        if number == 0:  # kill(2): a look whether the task is there, and it is
            reply.answer(None)
            return

        def done(_: None, error: BaseException | None) -> None:
            reply.fail(error) if error is not None else reply.answer(None)

        self._deliver(number, done)

    def _send(self, number: int) -> None:
        ref = self.actor_ref
        self._deliver(
            number, lambda _, error: error is not None and tell(ref, SignalFailed(error=error))
        )

    def _deliver(self, number: int, done: Callable[[None, BaseException | None], object]) -> None:
        assert self._running is not None  # noqa: S101
        running = self._running
        container = running.state.container_id
        work = deliver(running.services, self._link, container, number)
        spawn(self._services.loop, work, done)

    # --- destroy

    def _destroy(self, message: Destroy) -> None:
        if self._phase is Phase.GONE:
            self._destroy_gone(message.reply)
            return
        if self._phase in ALIVE and not message.force:
            raise DriverError(
                "cannot destroy running task",
                resolution="stop it first, or force",
                code=Code.PRECONDITION,
            )
        before = self._phase
        self._advance(Event.DESTROY)
        self._destroyers.append(message.reply)
        if self._phase is Phase.ABORTING:
            self._abort()
        elif before is not Phase.DESTROYING:
            self._tear_down()

    def _destroy_gone(self, reply: Reply[None]) -> None:
        """Nothing is left, but of what could not be recovered: that has only lost its actor."""
        if not self._recovers or self._running is not None:
            reply.answer(None)
            return

        def done(_: None, error: BaseException | None) -> None:
            reply.fail(error) if error is not None else reply.answer(None)

        spawn(self._services.loop, self._removal_by_name(), done)

    def _abort(self) -> None:
        if self._begin is not None:
            self._begin.cancel()

    def _tear_down(self) -> None:
        work = self._removal(self._running) if self._running else self._removal_by_name()
        ref = self.actor_ref
        spawn(self._services.loop, work, lambda _, error: tell(ref, Destroyed(error=error)))

    async def _removal(self, running: RunningTask) -> None:
        link, drained = self._link, self._drained or self._exit is None
        if link is not None and not link.closed and not drained:
            await teardown.until_drained(link, _DRAIN_BUDGET_S)
        if link is not None and not link.closed and self._exit is None:
            await teardown.kill(link)
        state = running.state
        with deadlines.within(_REMOVAL_S):
            await Patience()(
                lambda: teardown.remove(
                    running.services, state.container_id, link=link, snapshotter=state.snapshotter
                )
            )
        if running.from_go_driver:
            await go_takeover.remove_traces(self._task, state.container_id)
        await self._give_back_cgroup()

    async def _removal_by_name(self) -> None:
        """Of what could not be recovered: the handle did not say what it is, its id does."""
        services, task = self._services, self._task
        with deadlines.within(_REMOVAL_S):
            await Patience()(lambda: go_takeover.remove_unknown(services, task.id))
        await self._give_back_cgroup()

    async def _give_back_cgroup(self) -> None:
        await give_back_cgroup(self._task.resources, cgroup_v2=self._services.cgroup_v2)

    def _destroyed(self, error: BaseException | None) -> None:
        if error is not None:
            self._advance(Event.DESTROY_FAILED)
            _log.warning("task is not removed", extra={"task_id": self._task.id, "why": str(error)})
            for destroyer in self._destroyers:
                destroyer.fail(error)
            self._destroyers.clear()
            if isinstance(error, DriverError) and error.recoverable:
                self._destroy_later()
            return
        self._advance(Event.DESTROYED)
        self._gone()

    def _destroy_later(self) -> None:
        """Nomad does not ask again, and nobody else knows what is left."""
        loop, ref = self._services.loop, self.actor_ref

        def again() -> None:
            reply: Reply[None] = Reply()
            # A failure is told in the log alone.
            reply.future.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            tell(ref, Destroy(force=True, reply=reply))

        loop.call_soon_threadsafe(loop.call_later, _DESTROY_AGAIN_S, again)

    def _gone(self) -> None:
        self._held.release()
        for destroyer in self._destroyers:
            destroyer.answer(None)
        for stopper in self._stoppers:
            stopper.answer(None)
        for waiter in self._waiters:
            waiter.fail(not_found(self._task.id))
        # It stops this actor: it alone knows that no request is on its way any more.
        tell(self._supervisor, TaskGone(task_id=self._task.id, ref=self.actor_ref))

    # --- a worker that died

    def _worker_lost(self, link: WorkerLink) -> None:
        if link is not self._link or self._phase not in ALIVE or self._running is None:
            return
        self._link = None
        lived = time.monotonic() - self._restored
        pause_s = 0.0 if lived >= _STEADY_S else _RETRY_S
        _log.warning(
            "worker lost, a new one is made", extra={"task_id": self._task.id, "in_s": pause_s}
        )
        self._restore(pause_s)

    def _restore(self, pause_s: float) -> None:
        assert self._running is not None  # noqa: S101
        running, services, ref = self._running, self._services, self.actor_ref

        async def work() -> tuple[WorkerLink | None, ExitRecord | None]:
            await asyncio.sleep(pause_s)
            return await attach(running)

        def done(
            found: tuple[WorkerLink | None, ExitRecord | None] | None, error: BaseException | None
        ) -> None:
            if found is not None and found[1] is not None:
                tell(ref, Exited(exit=found[1]))
            elif found is not None and found[0] is None:
                tell(ref, Exited(exit=_vanished()))
            self._hand_over(WorkerRestored(link=found[0] if found else None, error=error))

        spawn(services.loop, work(), done)

    def _worker_restored(self, message: WorkerRestored) -> None:
        if message.link is not None:
            self._restored = time.monotonic()
            self._listen(message.link)
        elif message.error is not None and self._phase in ALIVE:
            _log.warning(
                "no worker yet, trying again",
                extra={"task_id": self._task.id, "why": str(message.error)},
            )
            self._restore(_RETRY_S)

    # --- small things

    def _advance(self, event: Event) -> None:
        self._phase = phases.advance(self._phase, event)

    def _status(self) -> TaskStatus:
        state = self._running.state if self._running else None
        ended = self._exit
        return TaskStatus(
            id=self._task.id,
            name=self._task.name,
            state=_NOMAD_STATE.get(self._phase, TaskState.UNKNOWN),
            started_at_ns=state.started_at_ns if state else 0,
            completed_at_ns=ended.at_ns if ended else 0,
            result=exit_result(ended) if ended else exit_result(_vanished(code=0)),
            driver_attributes={"containerName": state.container_id} if state else {},
            network=self._running.network if self._running else None,
        )

    def _publish(self, text: str) -> None:
        tell(self._services.events, Publish(event=TaskEvent.now(self._task, text)))


_NOMAD_STATE = {
    Phase.RUNNING: TaskState.RUNNING,
    Phase.STOPPING: TaskState.RUNNING,
    Phase.EXITED: TaskState.EXITED,
    Phase.DESTROYING: TaskState.EXITED,
    Phase.GONE: TaskState.EXITED,
}


def not_found(task_id: str) -> DriverError:
    """The error for an id that no task has, in Nomad's words."""
    return DriverError("task not found for given id", details=task_id[:200], code=Code.NOT_FOUND)


def _vanished(code: int = 137) -> ExitRecord:
    return ExitRecord(
        code=code,
        at_ns=time.time_ns(),
        oom_kills=0,
        lost=bool(code),
        reason="containerd has no such task any more and nothing recorded its exit",
    )


def _as_error(error: BaseException | None) -> BaseException:
    if isinstance(error, asyncio.CancelledError) or error is None:
        return DriverError(
            "the start was cancelled", details="the task was stopped meanwhile", code=Code.CANCELLED
        )
    return error
