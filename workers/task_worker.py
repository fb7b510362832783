"""Worker of a task: waits for the exit, keeps the logs, and reads the cgroup.

The worker has one thread, one epoll loop, and no timer while nothing happens. Plugins send requests
over control connections (`control`). The task runs, the logs are kept and the exit is recorded
without any connection. Only the request `end` ends the worker of a watched task.
"""

from __future__ import annotations

import fcntl
import os
import time

from proto.errors import Code, DriverError
from proto.release import RELEASE
from workers import c_modules, control, exit_record, protocol
from workers.log import log
from workers.logs.drain import Drain
from workers.logs.relay import Relay
from workers.logs.reports import LogReports
from workers.logs.streams import open_streams
from workers.loop import Loop, until_next
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
    from workers.health.monitor import Monitor
    from workers.logs.streams import Stream

_MIN_STATS_S = 0.05
_RECORD_AGAIN_S, _RECORD_AGAIN_MAX_S = 0.5, 60.0
_NEXT_START_S, _CREATE_S, _SLOW_S = 600.0, 60.0, 1.0
_CHECK_S = 0.002  # containerd cancels a Create whose plugin died: the shim lives for some 10 ms


class Worker:
    """The parts of a worker, and the answers to requests.

    Raises:
        DriverError: the set-up failed; code ALREADY_EXISTS if the task has a worker.
    """

    _alone_until = 0.0
    _oom_kills = 0

    def __init__(self, spec: WorkerSpec) -> None:
        self.loop = Loop()
        self.identity = own_identity()
        self._directory = open_directory(spec.dir)
        self._lock = lock_task(self._directory, spec, self.identity)
        self._reserved: exit_record.ReservedFile | None = None
        self._drained: bool | None = None
        self._watch: Watch | None = None
        self._health: Monitor | None = None
        self._streams: list[Stream] = []
        self._spec = spec
        self._log_reports = LogReports(spec, self._connections)
        self._relays: list[Relay] = []
        self._drain = Drain(self.loop, self._streams, self._on_drained)
        try:
            self._exit = exit_record.read_exit(spec.dir)
            if self._exit is None:
                self._reserved = exit_record.reserve_exit(self._directory)
            self._streams += open_streams(
                self.loop, spec, self._directory, self._drain.check, self._log_reports.changed
            )
            self._relay(spec.stdout_source, spec.stdout)
            self._relay(spec.stderr_source, spec.stderr)
            self.listener = control.Listener(
                self.loop, self._directory, protocol.CONTROL_SOCKET, self.serve, self._alone
            )
        except (DriverError, OSError):
            # The plugin may try again after the answer, before this process has ended.
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            raise
        if self._exit is not None:
            self._drain.begin()

    def hello(self) -> Frame:
        """Returns identity and release, the progress of the task, and the number of other peers."""
        return {
            **protocol.STATED,
            "release": RELEASE,
            **self.identity.to_wire(),
            "watching": self._watch is not None and self._watch.seen,
            "exit": self._exit.to_wire() if self._exit else None,
            "drained": self._drained is not None,
            "logs": self.logs(),
            "relays": self._sources(),
            protocol.HEALTH: self._health.status if self._health is not None else "",
            "peers": len(self.listener.connections()) - 1,
        }

    def _connections(self) -> tuple[Connection, ...]:
        return self.listener.connections()

    def logs(self) -> dict[str, str]:
        """Returns for each log FIFO a path in /proc that always opens the same FIFO."""
        paths: dict[str, str] = {}
        for stream in self._streams:
            paths.update(stream.paths())
        return paths

    def _sources(self) -> list[str]:
        """Returns paths of the FIFOs that this worker reads and the plugin holds too."""
        sources: list[str] = []
        for part in (*self._relays, *self._streams):
            sources += part.sources()
        return sources

    def _relay(self, source: str, path: str) -> None:
        if source:
            sink = self.logs().get(path, "/dev/null")
            self._relays.append(Relay(self.loop, source, sink))

    def serve(self, connection: Connection, request: Frame) -> None:
        """Answers a request.

        Raises:
            DriverError: the frame is no request.
        """
        if not isinstance(request.get("id"), int):
            raise DriverError("a request without an id", code=Code.CORRUPT)
        try:
            self._dispatch(connection, request)
        except DriverError as error:
            connection.refuse(request, error)

    def _dispatch(self, connection: Connection, request: Frame) -> None:
        if request.get("op") != protocol.END:  # every version can end a worker
            protocol.agree(request)
        match request.get("op"):
            case protocol.HELLO:
                connection.answer(request, self.hello())
                self._log_reports.greet(connection)
                self._report_oom()
                if self._health is not None:
                    self._health.greet()
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
                    details=f"the worker is of release {RELEASE}",
                    resolution="the next start of the task has a worker of the new release",
                    code=Code.UNSUPPORTED,
                )

    def _serve_watch(self, connection: Connection, request: Frame) -> None:
        target = ShimTarget.from_wire(request)

        def seen(pid: int, status: str, error: DriverError | None) -> None:
            if error is None:
                answer: Frame = {"pid": pid, "status": status}
                if self._health is not None:
                    self._health.begin(pid)
                    answer[protocol.HEALTH] = self._health.status
                connection.answer(request, answer)
                self._report_end(connection)
                return
            connection.refuse(request, error)
            self._give_up_watch()

        if self._exit is not None:
            seen(0, "stopped", None)
        elif self._watch is None:
            self._watch = Watch(self.loop, target, self._on_oom, self._on_exit)
            self._health = self._health_of(self._watch)
            self._watch.begin(seen)
        elif self._watch.target.container_id == target.container_id:
            self._watch.ask_state(seen)
        else:
            raise precondition(
                f"this worker watches container {self._watch.target.container_id} already"
            )

    def _give_up_watch(self) -> None:
        """Drops a watch that never saw the task; the next request may watch again."""
        if self._watch is not None and not self._watch.seen:
            self._watch.close()
            self._watch = None
            if self._health is not None:
                self._health.close()
            if not self._connections():
                self._alone()

    def _serve_kill(self, connection: Connection, request: Frame) -> None:
        number = protocol.signal_number(request)
        if self._exit is not None:
            raise DriverError("the task has ended already", code=Code.NOT_FOUND)
        if self._watch is None:
            raise precondition("cannot signal the task: the worker does not watch the task yet")

        if request.get(protocol.STOPS) is True and self._health is not None:
            self._health.stop()

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
                f"{interval_ms!r:.20} is not a valid interval of samples",
                resolution="give milliseconds, or 0 for no more samples",
                code=Code.INVALID,
            )
        if interval_ms and self._watch is None and self._exit is None:
            raise precondition("cannot sample the task: the worker does not watch the task yet")
        if connection.stats_timer is not None:
            connection.stats_timer.cancel()
            connection.stats_timer = None
        connection.answer(request)
        self._report_end(connection)
        if interval_ms and self._exit is None:
            bounded_ms = min(interval_ms, protocol.MAX_INTERVAL_MS)
            self._sample(connection, max(bounded_ms / 1000, _MIN_STATS_S))

    def _sample(self, connection: Connection, interval_s: float) -> None:
        if self._exit is not None or self._watch is None:
            return
        connection.send({"event": protocol.STATS, **self._watch.sample().to_wire()})
        if not connection.closed:
            connection.stats_timer = self.loop.later(
                until_next(interval_s), lambda: self._sample(connection, interval_s)
            )

    def _serve_end(self, connection: Connection, request: Frame) -> None:
        """Closes everything before the answer, because a new worker may be forked right after."""
        self._drain.cancel()
        if self._health is not None:
            self._health.close()
        if self._watch is not None:
            self._watch.close()
        for relay in self._relays:
            relay.close()
        for stream in self._streams:
            if request.get(protocol.RELEASE_READERS) is True and self._exit is not None:
                stream.wake()
            stream.close()
        self.listener.close()
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        connection.answer(request)
        self.loop.stop()

    def _alone(self) -> None:
        """Ends a worker without a watch after the close of the last connection.

        The plugin died during a start, and the next start of the task forks another worker. A
        worker that holds the logs stays until the next start ends the worker: Nomad may repeat the
        start without a new reader.
        """
        if self._watch is not None or self._exit is not None:
            return
        if not self._spec.holds_logs:
            self._leave()
        elif not self._alone_until:
            self._alone_until = time.monotonic() + _NEXT_START_S
            self._hold_logs()

    def _hold_logs(self) -> None:
        """Holds the write ends, and repeats: containerd may still be starting a shim.

        The plugin gives a Create up after `_CREATE_S`, and containerd ends the Create sooner.
        """
        held = [stream.hold(wanted=self._watch is None) for stream in self._streams]
        left_s = self._alone_until - time.monotonic()
        if self._watch is not None:
            self._alone_until = 0.0
        elif left_s < 0:
            self._leave()
        else:
            often = not all(held) and left_s > _NEXT_START_S - _CREATE_S
            self.loop.later(_CHECK_S if often else _SLOW_S, self._hold_logs)

    def _leave(self) -> None:
        self.listener.close()
        self.loop.stop()

    def close(self) -> None:
        """Closes the descriptors that are open after `end`; an exiting worker needs no close."""
        for connection in self.listener.connections():
            connection.close()
        if self._reserved is not None:
            self._reserved.close()
        os.close(self._lock)
        os.close(self._directory)

    def _report_end(self, connection: Connection) -> None:
        if self._exit is not None:
            connection.send(control.exit_event(self._exit))
        if self._drained is not None:
            connection.send(control.drained_event(complete=self._drained))

    def _health_of(self, watch: Watch) -> Monitor | None:
        """Returns the health checks of the task, if any. The launcher has imported the module."""
        if not os.access(protocol.HEALTH_CHECK, os.F_OK, dir_fd=self._directory):
            return None
        from workers.health import monitor  # noqa: PLC0415

        return monitor.load(self.loop, self._spec, self._directory, watch, self._connections)

    def _on_exit(self, record: ExitRecord) -> None:
        record = record if self._health is None else self._health.exit(record)
        self._exit = record
        self._keep_exit(record, _RECORD_AGAIN_S)
        for connection in self.listener.connections():
            if connection.stats_timer is not None:
                connection.stats_timer.cancel()
        self.listener.broadcast(control.exit_event(record))
        self._drain.begin()

    def _on_oom(self, kills: int) -> None:
        self._oom_kills = kills
        self._report_oom()

    def _report_oom(self) -> None:
        """Reports kills once to every plugin that knows events, or at the next hello."""
        kills = self._oom_kills
        if not kills:
            return
        for connection in self.listener.connections():
            if connection.knows_logs:
                connection.send({"event": protocol.OOM, "kills": kills})
                self._oom_kills = 0

    def _keep_exit(self, record: ExitRecord, again_s: float) -> None:
        """Writes the exit record, and repeats after a failure until the task is destroyed."""
        if self._reserved is None:
            return
        try:
            self._reserved.write(record.to_wire())
        except DriverError as error:
            log(
                f"worker: container_id={self._spec.name} cannot write exit record"
                f" (code {record.code}), will retry: {error}"
            )
            longer_s = min(again_s * 2, _RECORD_AGAIN_MAX_S)
            self.loop.later(again_s, lambda: self._keep_exit(record, longer_s))

    def _on_drained(self, complete: bool) -> None:  # noqa: FBT001 - Drain's callback
        self._drained = complete
        self.listener.broadcast(control.drained_event(complete=complete))


def run(
    spec: object,
    sock: c_modules.socket,
    decoder: Decoder,
    created: Callable[[Worker], None] | None = None,
) -> int:
    """Runs a worker in a forked process.

    Args:
        spec: spec of the worker, as received.
        sock: connection to the plugin that sent the request.
        decoder: decoder of the connection, with the bytes after the request.
        created: called with the worker before the worker's loop runs.

    Returns:
        The process's exit status: 0 after `end`, 1 after a failed set-up.
    """
    try:
        worker = Worker(parse_spec(spec))
    except (DriverError, OSError) as error:
        control.send_failed(sock, as_driver_error(error, spec))
        return 1
    if created is not None:
        created(worker)
    connection = worker.listener.adopt(sock, decoder)
    connection.send({"event": protocol.READY, **worker.hello()})
    connection.knows_logs = True
    connection.take(decoder.feed(b""))
    worker.loop.run()
    return 0
