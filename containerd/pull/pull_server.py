"""Server of pullers: a process that forks a puller for each pull, and ends after an idle minute.

The modules of a pull are loaded once; a fork takes milliseconds. The server has one thread, opens
no connection and reads no request: a request, with its passwords, goes to the forked puller alone.
A puller's memory ends with its pull. Neither a failed nor a killed puller changes the server.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from containerd.pull.protocol import BEGUN, ended
from proto import frames
from proto.exhaustion import exhausted

# A puller ends at once when the plugin leaves; a puller that is stuck is killed after this time.
_GRACE_S = 5.0


@dataclass(slots=True)
class _Puller:
    """A running puller: pid, descriptor of the process, and a copy of the puller's connection.

    kill_at is a time of time.monotonic(), or None while the plugin waits for the pull.
    """

    pid: int
    process: int
    connection: socket.socket
    kill_at: float | None = None


class PullServer:
    """A server on one control connection.

    Each message of the control connection carries the descriptor of a connection to the plugin. The
    server writes `BEGUN` to the connection and forks a puller, which has the connection as stdin
    and stdout. After the puller's end the server writes the exit status, and closes the connection.

    Args:
        control: the connection to the plugin; its end lets the server finish.
        pull: serves one request on stdin and stdout; returns the exit status.
        idle_s: seconds without a puller after which the server ends.
    """

    def __init__(self, control: socket.socket, pull: Callable[[], int], idle_s: float) -> None:
        self._control = control
        self._pull = pull
        self._idle_s = idle_s
        self._pullers: dict[int, _Puller] = {}
        self._connections: dict[int, _Puller] = {}
        self._poll = select.poll()

    def serve(self) -> None:
        """Serves until the plugin closes the control connection, or until no pull comes."""
        self._poll.register(self._control, select.POLLIN)
        open_ = True
        while open_ or self._pullers:
            events = self._poll.poll(self._wait_ms())
            if not events and not self._pullers:
                return
            for descriptor, _ in events:
                if descriptor == self._control.fileno():
                    open_ = self._accept()
                elif descriptor in self._pullers:
                    self._reap(self._pullers[descriptor])
                elif descriptor in self._connections:
                    self._left(self._connections[descriptor])
            self._kill_late()

    def _wait_ms(self) -> float | None:
        if not self._pullers:
            return self._idle_s * 1000
        times = [puller.kill_at for puller in self._pullers.values() if puller.kill_at is not None]
        return max(0.0, min(times) - time.monotonic()) * 1000 if times else None

    def _accept(self) -> bool:
        """Forks a puller for the next message. Returns False if the plugin has gone."""
        data, descriptors, _, _ = socket.recv_fds(self._control, 1, 1)
        if not data:
            self._poll.unregister(self._control)
            return False
        for descriptor in descriptors:
            self._begin(socket.socket(fileno=descriptor))
        return True

    def _begin(self, connection: socket.socket) -> None:
        _send(connection, BEGUN)
        try:
            pid = os.fork()
        except OSError as error:
            failed = exhausted("cannot create a process for a puller", error)
            _send(connection, {"event": "failed", "error": failed.to_wire()})
            connection.close()
            return
        if pid == 0:
            self._become_puller(connection)
        puller = _Puller(pid, os.pidfd_open(pid), connection)
        self._pullers[puller.process] = self._connections[connection.fileno()] = puller
        self._poll.register(puller.process, select.POLLIN)
        self._poll.register(connection, select.POLLRDHUP)

    def _become_puller(self, connection: socket.socket) -> None:
        """Runs the pull in the forked process. Never returns."""
        status = 1
        try:
            os.dup2(connection.fileno(), 0)
            os.dup2(connection.fileno(), 1)
            # A copy of another pull's connection would hide the end of the other pull.
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            status = self._pull()
        finally:
            # Does not wait for threads of cancelled downloads.
            os._exit(status)

    def _left(self, puller: _Puller) -> None:
        """Gives a puller some seconds to end: the plugin has closed its side."""
        self._poll.unregister(puller.connection)
        puller.kill_at = time.monotonic() + _GRACE_S

    def _kill_late(self) -> None:
        now = time.monotonic()
        for puller in self._pullers.values():
            if puller.kill_at is not None and puller.kill_at <= now:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(puller.process, signal.SIGKILL)
                puller.kill_at = None

    def _reap(self, puller: _Puller) -> None:
        _, status = os.waitpid(puller.pid, 0)
        self._poll.unregister(puller.process)
        with contextlib.suppress(KeyError):
            self._poll.unregister(puller.connection)
        del self._pullers[puller.process], self._connections[puller.connection.fileno()]
        os.close(puller.process)
        _send(puller.connection, ended(os.waitstatus_to_exitcode(status)))
        puller.connection.close()


def _send(connection: socket.socket, frame: frames.Frame) -> None:
    """Writes a small event, unless the plugin has gone or reads nothing."""
    with contextlib.suppress(OSError):
        connection.send(frames.encode(frame), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
