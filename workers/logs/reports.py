"""Log reports: the worker sends each change of a log's state once to each plugin that knows logs.

A plugin knows logs after sending hello: an earlier release must not receive log events before. The
worker keeps a change without a receiver for the next plugin.
"""

from __future__ import annotations

from workers import protocol
from workers.protocol import LogState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.control import Connection
    from workers.logs.buffer import LogBuffer
    from workers.protocol import WorkerSpec


class LogReports:
    """The states of one task's logs, as far as plugins still have to receive them.

    Args:
        spec: spec of the worker.
        connections: returns the open control connections.
    """

    def __init__(self, spec: WorkerSpec, connections: Callable[[], tuple[Connection, ...]]) -> None:
        self._spec = spec
        self._connections = connections
        self._states: dict[str, LogState] = {}
        self._dropped_unreported: dict[str, int] = {}

    def changed(self, path: str, buffer: LogBuffer) -> None:
        """Reports the new state of the log with the FIFO `path` to every plugin that knows logs."""
        stream = "stdout" if path == self._spec.stdout else "stderr"
        state = LogState(
            stream=stream,
            state=buffer.state,
            kept=buffer.kept,
            dropped=buffer.dropped + self._dropped_unreported.get(stream, 0),
            limit=buffer.limit,
            wanted=self._spec.log_buffer_bytes,
            problem=buffer.problem,
        )
        self._states[stream] = state
        if state.state == protocol.READING:
            self._dropped_unreported[stream] = state.dropped
        for connection in self._connections():
            if connection.knows_logs:
                _send(connection, state)
        self._forget_recovered()

    def greet(self, connection: Connection) -> None:
        """Sends all kept states with the first hello of a connection.

        A plugin sends hello again and again, and receives later changes anyway.
        """
        if not connection.knows_logs:
            connection.knows_logs = True
            for state in self._states.values():
                _send(connection, state)
            self._forget_recovered()

    def _forget_recovered(self) -> None:
        """Drops the states of logs that are read again, once a plugin has received them."""
        if not self._states:
            return
        if not any(connection.knows_logs for connection in self._connections()):
            return
        for stream, state in list(self._states.items()):
            if state.state == protocol.READING:
                del self._states[stream], self._dropped_unreported[stream]


def _send(connection: Connection, state: LogState) -> None:
    connection.send({"event": protocol.LOG, **state.to_wire()})
