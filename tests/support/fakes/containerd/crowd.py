"""Tasks without processes of their own: one thread is the shim of all tasks.

A `FakeShim` is a process of 10 MB. `Crowd` serves thousands of tasks, each with its own worker.
"""

from __future__ import annotations

import asyncio
import os
import struct
import subprocess
import threading
import time
from concurrent.futures import Future
from pathlib import Path

from tests.support.fakes.shim import FakeShim
from tests.support.waiting import slowed
from workers.protocol import ShimTarget
from workers.shim import ttrpc

_HEADER = struct.Struct(">IIBB")
_CREATED, _RUNNING, _STOPPED = 1, 2, 3
_NOT_FOUND, _RESPONSE = 5, 2
_KILLED = 137


class Crowd:
    """The shim of all tasks; all tasks have the same process. `close` ends the shim.

    Args:
        place: path of the shim's socket.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.members: dict[str, Member] = {}
        self._process = subprocess.Popen(["sleep", "infinity"], start_new_session=True)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        serving = asyncio.start_unix_server(self._serve, place, backlog=4096)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result(slowed(10))

    @property
    def pid(self) -> int:
        """The process of every task."""
        return self._process.pid

    def member(self, name: str, script: str, place: Path, logs: tuple[str, str]) -> Member:  # noqa: ARG002
        """Creates a task. The parameters are those of `FakeShim`; the script is not run."""
        self.members[name] = Member(self, name, script, logs)
        return self.members[name]

    def close(self) -> None:
        """Ends the process, the connections and the shim's thread. The workers must have ended."""
        self._process.kill()
        self._process.wait(slowed(10))
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(slowed(10))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(slowed(10))
        self._loop.close()

    async def _end(self) -> None:
        """Ends the connections and all calls."""
        self._server.close()
        calls = asyncio.all_tasks() - {asyncio.current_task()}
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waits: set[asyncio.Task[None]] = set()
        try:
            while True:
                length, stream, _, _ = _HEADER.unpack(await reader.readexactly(_HEADER.size))
                fields = ttrpc.parse(await reader.readexactly(length))
                reply = asyncio.create_task(self._reply(writer, stream, fields))
                waits.add(reply)
                reply.add_done_callback(waits.discard)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            for reply in waits:
                reply.cancel()
            writer.close()

    async def _reply(self, writer: asyncio.StreamWriter, stream: int, fields: ttrpc.Fields) -> None:
        method = ttrpc.octets(fields, 2).decode()
        payload = ttrpc.octets(fields, 3)
        member = self.members.get(ttrpc.octets(ttrpc.parse(payload), 1).decode())
        if member is None:
            body = ttrpc.message({1: ttrpc.message({1: _NOT_FOUND, 2: b"no such task"})})
        else:
            if method == "Wait":
                await asyncio.shield(asyncio.wrap_future(member.exit))
            body = ttrpc.message({2: member.call(method, payload)})
        writer.write(_HEADER.pack(len(body), stream, _RESPONSE, 0) + body)


class Member(FakeShim):
    """One task of a crowd, with the interface of `FakeShim`. A kill ends the task at once."""

    def __init__(self, crowd: Crowd, name: str, script: str, logs: tuple[str, str]) -> None:
        super().__init__(name, script, crowd.place, logs)
        self.exit: Future[int] = Future()
        """The time of the exit, in nanoseconds of the epoch."""
        self._crowd = crowd
        self._status = _CREATED
        self._open: list[int] = []

    def create(self) -> ShimTarget:
        """Opens the log FIFOs as a shim does."""
        paths = [path or os.devnull for path in self._logs]
        self._open = [os.open(path, os.O_WRONLY) for path in paths]
        self._open += [os.open(path, os.O_RDONLY) for path in paths]
        self.pid = self._crowd.pid
        address = f"unix://{self._crowd.place}"
        return ShimTarget(address=address, api=2, namespace="fake", container_id=self.name)

    def call(self, method: str, payload: bytes) -> bytes:  # noqa: ARG002
        """Answers one call of the task API; every Kill ends the task. Wait blocks."""
        match method:
            case "Start":
                self._status = _RUNNING
            case "Kill":
                self._end()
            case "Wait":
                return ttrpc.message({1: _KILLED, 2: self._moment(self.exit.result())})
            case "State":
                status = _STOPPED if self.exit.done() else self._status
                told: dict[int, int | str | bytes] = {1: self.name, 3: self.pid, 4: status}
                if self.exit.done():
                    told |= {9: _KILLED, 10: self._moment(self.exit.result())}
                return ttrpc.message(told)
        return b""

    def remove(self) -> None:
        """Ends the task."""
        self._end()
        self._crowd.members.pop(self.name, None)

    def _end(self) -> None:
        opened, self._open = self._open, []
        for descriptor in opened:
            os.close(descriptor)
        if not self.exit.done():
            self.exit.set_result(time.time_ns())

    def _moment(self, at_ns: int) -> bytes:
        return ttrpc.message({1: at_ns // 10**9, 2: at_ns % 10**9})
