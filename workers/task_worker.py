"""The process that looks after one task: it waits for the exit, keeps the logs, reads the cgroup.

One thread, one epoll loop, no timer while nothing happens. Whoever asks, asks over a control
connection (`control`); none of them is needed for the task to run on, log, and have its exit
remembered. The worker ends when told `end`, and at nothing else.
"""

from __future__ import annotations

import fcntl
import os
import time

from proto.errors import Code, DriverError
from proto.release import RELEASE
from workers import c_modules, control, exit_record, procfs, protocol
from workers.logs.drain import Drain
from workers.logs.keeper import Keeper
from workers.logs.relay import Relay
from workers.logs.reports import LogReports
from workers.loop import Loop
from workers.protocol import ExitRecord, ShimTarget, WorkerSpec
from workers.shim.exit_watch import Watch
from workers.worker_setup import (
    as_driver_error,
    lock_task,
    open_directory,
    own_identity,
    parse_spec,
    precondition,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from proto.frames import Decoder, Frame
    from workers.control import Connection

_NO_LOG = {"", "/dev/null"}
_MIN_STATS_S = 0.05
_MAX_SIGNAL = 64
_RECORD_AGAIN_S, _RECORD_AGAIN_MAX_S = 0.5, 60.0
_NEXT_START_S, _HELD_S, _LOOK_S = 600.0, 1.0, 0.05


class Worker:
    """Everything of one worker. Made whole or not at all.

    Raises:
        DriverError: why this task cannot be looked after; ALREADY_EXISTS if it is already.
    """

    _alone_until = 0.0
    _oom_kills = 0

    def __init__(self, spec: WorkerSpec) -> None:
        self.loop = Loop()
        self.identity = own_identity()
        self._directory = open_directory(spec.dir)
        self._lock = lock_task(self._directory, spec, self.identity)
        self._place: exit_record.Place | None = None
        self._drained: bool | None = None
        self._watch: Watch | None = None
        self._keepers: list[Keeper] = []
        self._spec = spec
        self._log_reports = LogReports(spec, self._connections)
        self._relays: list[Relay] = []
        self._drain = Drain(self.loop, self._keepers, self._on_drained)
        try:
            self._exit = exit_record.read_exit(spec.dir)
            if self._exit is None:
                self._place = exit_record.place_of_exit(self._directory)
            for path in dict.fromkeys((spec.stdout, spec.stderr)):
                if path not in _NO_LOG:
                    keeper = Keeper(
                        self.loop, path, spec, self._drain.look, self._log_reports.changed
                    )
                    self._keepers.append(keeper)
            self._relay(spec.stdout_source, spec.stdout)
            self._relay(spec.stderr_source, spec.stderr)
            self.listener = control.Listener(
                self.loop, self._directory, protocol.CONTROL_SOCKET, self.serve, self._alone
            )
        except (DriverError, OSError):
            # Whoever asked may try again as soon as it is told, before this process has ended.
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            raise
        if self._exit is not None:
            self._drain.begin()

    def hello(self) -> Frame:
        """Returns who this is, how far its task is, and how many others are connected to it."""
        return {
            **protocol.STATED,
            "release": RELEASE,
            **self.identity.to_wire(),
            "watching": self._watch is not None and self._watch.seen,
            "exit": self._exit.to_wire() if self._exit else None,
            "drained": self._drained is not None,
            "logs": self.logs(),
            "relays": list(map(Relay.held, self._relays)),
            "peers": len(self.listener.connections()) - 1,
        }

    def _connections(self) -> tuple[Connection, ...]:
        return self.listener.connections()

    def logs(self) -> dict[str, str]:
        """For each log FIFO a path that a swap of the FIFO does not lead elsewhere."""
        return dict(map(Keeper.held, self._keepers))

    def _relay(self, source: str, path: str) -> None:
        if source:
            sink = self.logs().get(path, "/dev/null")
            self._relays.append(Relay(self.loop, source, sink))

    def serve(self, connection: Connection, request: Frame) -> None:
        """Answers one request.

        Raises:
            DriverError: it is no request at all.
        """
        if not isinstance(request.get("id"), int):
            raise DriverError("a request without an id", code=Code.CORRUPT)
        try:
            self._dispatch(connection, request)
        except DriverError as error:
            connection.refuse(request, error)

    def _dispatch(self, connection: Connection, request: Frame) -> None:
        if request.get("op") != protocol.END:  # whoever cannot speak with a worker replaces it
            protocol.agree(request)
        match request.get("op"):
            case protocol.HELLO:
                connection.answer(request, self.hello())
                self._log_reports.greet(connection)
                self._tell_oom()
            case protocol.WATCH:
                self._serve_watch(connection, request)
            case protocol.KILL:
                self._serve_kill(connection, request)
            case protocol.STATS:
                self._serve_stats(connection, request)
            case protocol.END:
                self._serve_end(connection, request)
            case other:
                raise DriverError(
                    f"the task's worker does not know the request {other!r:.80}",
                    details=f"it is of release {RELEASE}",
                    resolution="it is replaced when its task is started anew",
                    code=Code.UNSUPPORTED,
                )

    def _serve_watch(self, connection: Connection, request: Frame) -> None:
        target = ShimTarget.from_wire(request)

        def seen(pid: int, status: str, error: DriverError | None) -> None:
            if error is None:
                connection.answer(request, {"pid": pid, "status": status})
                self._tell_end(connection)
                return
            connection.refuse(request, error)
            self._give_up_watch()

        if self._exit is not None:
            seen(0, "stopped", None)
        elif self._watch is None:
            self._watch = Watch(self.loop, target, self._on_oom, self._on_exit)
            self._watch.begin(seen)
        elif self._watch.target.container_id == target.container_id:
            self._watch.look(seen)
        else:
            raise precondition(
                f"this worker watches container {self._watch.target.container_id} already"
            )

    def _give_up_watch(self) -> None:
        """A watch that never saw its task is none; the next request may try anew."""
        if self._watch is not None and not self._watch.seen:
            self._watch.close()
            self._watch = None

    def _serve_kill(self, connection: Connection, request: Frame) -> None:
        number = request.get("signal")
        if type(number) is not int or not 0 < number <= _MAX_SIGNAL:
            raise DriverError(f"{number!r:.20} is not a signal's number", code=Code.INVALID)
        if self._exit is not None:
            raise DriverError("the task has ended already", code=Code.NOT_FOUND)
        if self._watch is None:
            raise precondition("the task is not watched yet, so it cannot be signalled")

        def done(error: DriverError | None) -> None:
            if error is None:
                connection.answer(request)
            else:
                connection.refuse(request, error)

        self._watch.kill(number, everyone=request.get("all") is True, done=done)

    def _serve_stats(self, connection: Connection, request: Frame) -> None:
        interval_ms = request.get("interval_ms")
        if type(interval_ms) is not int or interval_ms < 0:
            raise DriverError(
                f"{interval_ms!r:.20} is not an interval of samples",
                resolution="give milliseconds, or 0 for no more samples",
                code=Code.INVALID,
            )
        if interval_ms and self._watch is None and self._exit is None:
            raise precondition("the task is not watched yet, so there is nothing to measure")
        if connection.stats_timer is not None:
            connection.stats_timer.cancel()
            connection.stats_timer = None
        connection.answer(request)
        self._tell_end(connection)
        if interval_ms and self._exit is None:
            bounded_ms = min(interval_ms, protocol.MAX_INTERVAL_MS)
            self._sample(connection, max(bounded_ms / 1000, _MIN_STATS_S))

    def _sample(self, connection: Connection, interval_s: float) -> None:
        if self._exit is not None or self._watch is None:
            return
        connection.send({"event": protocol.STATS, **self._watch.sample().to_wire()})
        if not connection.closed:
            connection.stats_timer = self.loop.later(
                _until_next(interval_s), lambda: self._sample(connection, interval_s)
            )

    def _serve_end(self, connection: Connection, request: Frame) -> None:
        """Lets go of everything before the answer: a successor may be forked right after it."""
        self._drain.cancel()
        if self._watch is not None:
            self._watch.close()
        for relay in self._relays:
            relay.close()
        for keeper in self._keepers:
            if request.get(protocol.FAREWELL) is True and self._exit is not None:
                keeper.nudge()
            keeper.close()
        self.listener.close()
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        connection.answer(request)
        self.loop.stop()

    def _alone(self) -> None:
        """Ends a worker that nobody told what to watch before the last connection closed.

        Its plugin died in the middle of a start, and the next start of this task has a worker of
        its own forked. A worker that holds the logs goes on until that start ends it: Nomad may
        make the start again without a new reader.
        """
        if self._watch is not None or self._exit is not None:
            return
        if not self._spec.holds_logs:
            self._leave()
        elif not self._alone_until:
            self._alone_until = time.monotonic() + _NEXT_START_S
            self._hold_logs()

    def _hold_logs(self) -> None:
        """Looks again and again: containerd may still be at work for a shim."""
        held = [keeper.hold(wanted=self._watch is None) for keeper in self._keepers]
        if self._watch is None and time.monotonic() > self._alone_until:
            self._leave()
        elif self._watch is None:
            self.loop.later(_HELD_S if all(held) else _LOOK_S, self._hold_logs)

    def _leave(self) -> None:
        self.listener.close()
        self.loop.stop()

    def close(self) -> None:
        """Gives back the descriptors that are left after `end`; a worker that exits need not."""
        for connection in self.listener.connections():
            connection.close()
        if self._place is not None:
            self._place.close()
        os.close(self._lock)
        os.close(self._directory)

    def _tell_end(self, connection: Connection) -> None:
        if self._exit is not None:
            connection.send(_exit_event(self._exit))
        if self._drained is not None:
            connection.send(_drained_event(complete=self._drained))

    def _on_exit(self, record: ExitRecord) -> None:
        self._exit = record
        self._keep_exit(record, _RECORD_AGAIN_S)
        for connection in self.listener.connections():
            if connection.stats_timer is not None:
                connection.stats_timer.cancel()
        self.listener.broadcast(_exit_event(record))
        self._drain.begin()

    def _on_oom(self, kills: int) -> None:
        self._oom_kills = kills
        self._tell_oom()

    def _tell_oom(self) -> None:
        """Once to whoever knows of events; a plugin that was away hears of it by its hello."""
        kills = self._oom_kills
        if not kills:
            return
        for connection in self.listener.connections():
            if connection.knows_logs:
                connection.send({"event": protocol.OOM, "kills": kills})
                self._oom_kills = 0

    def _keep_exit(self, record: ExitRecord, again_s: float) -> None:
        """Writes the exit record; what cannot be written now is tried again until the task goes."""
        if self._place is None:
            return
        try:
            self._place.write(record.to_wire())
        except DriverError as error:
            procfs.say(f"worker: exit {record.code} is known to this process only yet: {error}")
            longer_s = min(again_s * 2, _RECORD_AGAIN_MAX_S)
            self.loop.later(again_s, lambda: self._keep_exit(record, longer_s))

    def _on_drained(self, complete: bool) -> None:  # noqa: FBT001 - Drain's callback
        self._drained = complete
        self.listener.broadcast(_drained_event(complete=complete))


def run(
    spec: object,
    sock: c_modules.socket,
    decoder: Decoder,
    made: Callable[[Worker], None] | None = None,
) -> int:
    """The life of a worker in a process just forked; `sock` is who asked for it.

    `made` is called with the worker before it begins.

    Returns:
        The process's exit status: 0 after `end`, 1 when the task cannot be looked after.
    """
    try:
        worker = Worker(parse_spec(spec))
    except (DriverError, OSError) as error:
        control.say_failed(sock, as_driver_error(error, spec))
        return 1
    if made is not None:
        made(worker)
    connection = worker.listener.adopt(sock, decoder)
    connection.send({"event": protocol.READY, **worker.hello()})
    connection.knows_logs = True
    connection.take(decoder.feed(b""))
    worker.loop.run()
    return 0


def _exit_event(record: ExitRecord) -> Frame:
    return {"event": protocol.EXIT, **record.to_wire()}


def _drained_event(*, complete: bool) -> Frame:
    return {"event": protocol.DRAINED, "complete": complete}


def _until_next(interval_s: float) -> float:
    """Seconds to the next multiple of the interval on the clock that all workers share.

    So the samples of all tasks come together, and the plugin wakes up once for all of them. The
    second sample never comes sooner than half an interval after the first.
    """
    now_s = time.monotonic()
    wait_s = interval_s - now_s % interval_s
    return wait_s if wait_s > interval_s / 2 else wait_s + interval_s
