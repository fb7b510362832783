"""Process of a plugin, as in go-plugin: handshake, log, death, end."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
from collections.abc import AsyncGenerator, Sequence
from typing import IO

from actors.processes import child_process
from plugin.host.agent import plugin_program
from plugin.host.agent.hclog import parse_line
from plugin.host.agent.log_reader import Lines
from proto.errors import Code, DriverError

_START_S = 60.0
_LOG_END_S = 1.0
_MIN_FIELDS = 5
_POLL_S = 0.01
_log = logging.getLogger("plugin.host.plugin")


class PluginProcess:
    """A process from its start until it is reaped.

    Args:
        program: the executable and its arguments.
        child: the process, if `plugin_program` has started it; no other program reads its pipes.
    """

    def __init__(self, program: Sequence[str], child: child_process.Child | None = None) -> None:
        self._program = list(program)
        self._child = child
        self._pumps: list[asyncio.Task[None]] = []
        self._tail: collections.deque[str] = collections.deque(maxlen=5)

    async def start(self) -> str:
        """Starts the process if there is none, and returns the path of the plugin's socket.

        Raises:
            DriverError: code UNAVAILABLE, with the end of the log: the process cannot be started,
                or prints no handshake.
        """
        child = self._child = self._child or self._started()
        assert child.stdout is not None  # noqa: S101 - PIPE was asked for
        assert child.stderr is not None  # noqa: S101
        self._pumps.append(asyncio.create_task(self._pump_log(child.stderr)))
        reader, transport = await _reader(child.stdout)
        try:
            line = (await asyncio.wait_for(reader.readline(), _START_S)).decode(errors="replace")
        except (TimeoutError, ValueError):
            line = ""
        except asyncio.CancelledError:
            transport.close()
            raise
        # An agent reads on and drops the data: a full pipe would block the plugin.
        self._pumps.append(asyncio.create_task(_drain(reader, transport)))
        fields = line.strip().split("|")
        if len(fields) < _MIN_FIELDS or fields[2] != "unix" or fields[4] != "grpc":
            raise await self._no_plugin(line)
        return fields[3]

    def _started(self) -> child_process.Child:
        try:
            return plugin_program.start(self._program)
        except OSError as error:
            raise DriverError(
                f"cannot start the plugin {self._program[0]}: {error.strerror}",
                code=Code.UNAVAILABLE,
            ) from error

    async def _no_plugin(self, line: str) -> DriverError:
        reason = line.strip() or "no handshake"
        ended = await self.ends_within(_LOG_END_S)
        await self.finish(0)
        if ended and self._child is not None:
            reason = f"it ended with status {self._child.returncode}"
        details = "; ".join([reason, *self._tail])
        return DriverError(
            f"{self._program[0]} did not start as a plugin",
            details=details[:2000],
            code=Code.UNAVAILABLE,
        )

    @property
    def pid(self) -> int:
        """The pid; 0 before the start."""
        return self._child.pid if self._child else 0

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._child is not None and self._child.poll() is None

    async def ends_within(self, seconds: float) -> bool:
        """Waits up to `seconds` for the end; returns True if the process has ended.

        A caller with a broken connection waits, because the exit status follows later.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        while self.alive:
            if asyncio.get_running_loop().time() >= deadline:
                return False
            await asyncio.sleep(_POLL_S)
        return True

    def kill(self) -> None:
        """Kills the process with SIGKILL, as an out-of-memory kill or a crash would."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    async def finish(self, grace_s: float) -> None:
        """Waits `grace_s` seconds for the end, then kills; reads the log to its end."""
        if self._child is not None and self.alive:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(child_process.ended(self._child), grace_s)
            await asyncio.to_thread(child_process.finish, self._child, 0)
        if self._pumps:
            await asyncio.wait(self._pumps, timeout=_LOG_END_S)
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        self._pumps.clear()

    async def _pump_log(self, pipe: IO[bytes]) -> None:
        reader, transport = await _reader(pipe)
        try:
            lines = Lines()
            async for data in _chunks(reader):
                self._logged(lines.feed(data))
            self._logged(lines.end())
        finally:
            transport.close()

    def _logged(self, lines: list[bytes]) -> None:
        for raw in lines:
            line = parse_line(raw)
            self._tail.append(line.text)
            _log.log(line.level, "%s", line.text)


async def _drain(reader: asyncio.StreamReader, transport: asyncio.ReadTransport) -> None:
    try:
        async for _ in _chunks(reader):
            pass
    finally:
        transport.close()


async def _chunks(reader: asyncio.StreamReader) -> AsyncGenerator[bytes, None]:
    while data := await reader.read(65536):
        yield data


async def _reader(pipe: IO[bytes]) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    return reader, transport
