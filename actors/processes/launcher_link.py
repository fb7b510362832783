"""Connection to the launcher: finds or starts the launcher, and requests workers.

The connection of a fork request becomes the worker's first control connection. A new worker costs
one connect, one frame and one fork.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from pathlib import Path

from actors.files.state_dir import make_private
from actors.processes import child_process
from actors.processes.worker_link import WorkerLink, connect_unix
from proto import frames
from proto.errors import Code, DriverError
from proto.exhaustion import advice, exhausted
from proto.release import RELEASE
from workers import protocol

# As TimeoutStartSec of the unit: the warm-up works for seconds on a slow or busy machine.
_START_TIMEOUT_S = 60.0
_FORK_TIMEOUT_S = 10.0
_POLL_S = 0.005
_STDERR_BYTES = 4096
_HELLOS = 2
"""A launcher may die on the first request; with systemd the next launcher gets the second."""
_log = logging.getLogger(__name__)


class LauncherLink:
    """Client of the launcher. Belongs to the event loop.

    No connection stays open between forks: the launcher may restart.

    Args:
        state_dir: the state directory, with the launcher's socket.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._starting = asyncio.Lock()

    async def ensure(self) -> None:
        """Starts a launcher if no launcher listens. Replaces a launcher of another release.

        Raises:
            DriverError: code UNAVAILABLE, with the launcher's error. Code DENIED: another user can
                change the state directory, or listens on the socket.
        """
        async with self._starting:
            await asyncio.to_thread(_make_private, self._state_dir)
            greeting = await self._hello()
            if greeting is not None and greeting.get("release") != RELEASE:
                _log.info(
                    "retiring the launcher of another release",
                    extra={"release": str(greeting.get("release"))},
                )
                with contextlib.suppress(OSError, DriverError):
                    await self._ask({"op": protocol.RETIRE, **protocol.STATED})
                # If systemd listens, this request starts the launcher of the installed release.
                greeting = await self._hello()
            if greeting is None:
                _log.debug("starting the launcher", extra={"state_dir": str(self._state_dir)})
                await self._start()

    async def fork(self, spec: protocol.WorkerSpec) -> WorkerLink:
        """Requests a new worker. The worker has opened the logs and listens when the call returns.

        Args:
            spec: names and paths of the task.

        Raises:
            DriverError: the worker could not be created, for the reason in the text.
        """
        try:
            return await self._fork(spec)
        except (OSError, DriverError) as error:
            if isinstance(error, OSError) and advice(error):
                raise exhausted("cannot connect to the worker launcher", error) from error
            # A launcher without a common protocol version retires: a new launcher is started.
            if isinstance(error, DriverError) and error.code is not Code.UNSUPPORTED:
                raise
            await self.ensure()
        try:
            return await self._fork(spec)
        except OSError as error:
            raise self._unreachable(str(error)) from error

    async def _fork(self, spec: protocol.WorkerSpec) -> WorkerLink:
        reader, writer = await connect_unix(self._socket)
        link = WorkerLink(reader, writer)
        # A worker without a connection and without a task ends by itself.
        with link.dropped_on_failure():
            writer.write(
                frames.encode({"op": protocol.FORK, **protocol.STATED, "spec": spec.to_wire()})
            )
            frame = await self._first(link)
            if frame.get("event") != protocol.READY:
                error = frame.get("error")
                raise DriverError.from_wire(error)
            link.ready(frame)
        return link

    async def _first(self, link: WorkerLink) -> frames.Frame:
        """Returns the answer to a fork: the worker's first frame, or the refusal."""
        first: asyncio.Future[frames.Frame | None]
        first = asyncio.get_running_loop().create_future()

        def receive(frame: frames.Frame | None) -> None:
            if not first.done():
                first.set_result(frame)

        link.listen(receive)
        try:
            frame = await asyncio.wait_for(first, _FORK_TIMEOUT_S)
        except TimeoutError:
            raise self._unreachable(f"no worker within {_FORK_TIMEOUT_S:g} s") from None
        link.hold()
        if frame is None:
            raise ConnectionResetError("the launcher closed the connection")
        return frame

    @property
    def _socket(self) -> Path:
        return self._state_dir / protocol.LAUNCHER_SOCKET

    async def _hello(self) -> frames.Frame | None:
        for _ in range(_HELLOS):
            try:
                return _served(await self._ask({"op": protocol.HELLO, **protocol.STATED}))
            except ConnectionResetError:
                continue
            except OSError as error:
                if advice(error):
                    raise exhausted("cannot connect to the worker launcher", error) from error
                break
            except DriverError as error:
                if error.code in {Code.EXHAUSTED, Code.DENIED}:
                    raise
                break
        return None

    async def _ask(self, request: frames.Frame) -> frames.Frame:
        reader, writer = await connect_unix(self._socket)
        decoder = frames.Decoder()
        try:
            writer.write(frames.encode(request))
            while data := await asyncio.wait_for(reader.read(65536), _FORK_TIMEOUT_S):
                for frame in decoder.feed(data):
                    return frame
        except TimeoutError as error:
            raise self._unreachable("no answer") from error
        finally:
            writer.close()
        raise ConnectionResetError("the launcher closed the connection")

    async def _start(self) -> None:
        await asyncio.to_thread(_make_private, self._state_dir / "tasks")
        argv = [
            sys.executable,
            "-I",
            str(child_process.ROOT / "workers" / "launcher.py"),
            "--state-dir",
            str(self._state_dir),
        ]
        process = await child_process.started(argv, stderr=child_process.PIPE, new_session=True)
        assert process.stderr is not None  # noqa: S101 - PIPE was asked for
        with process.stderr:
            await self._until_served(process)

    async def _until_served(self, process: child_process.Child) -> None:
        """Waits until the launcher serves. Reads stderr: an early error is not in the log."""
        deadline = asyncio.get_running_loop().time() + _START_TIMEOUT_S
        while await self._hello() is None:
            # The launcher detaches (exit status 0) or stays; any other end is a failure.
            if process.poll() not in {None, 0}:
                data = process.stderr.read(_STDERR_BYTES) if process.stderr else b""
                reason = data.decode(errors="replace").strip().rpartition("launcher: ")[2]
                raise self._unreachable(f"exit status {process.returncode}: {reason}")
            if asyncio.get_running_loop().time() > deadline:
                raise self._unreachable(f"no socket after {_START_TIMEOUT_S:g} s")
            await asyncio.sleep(_POLL_S)

    def _unreachable(self, details: str) -> DriverError:
        return DriverError(
            "cannot reach the worker launcher",
            details=details,
            resolution=f"see {self._state_dir / protocol.LAUNCHER_LOG}, and dmesg: the kernel may"
            " have killed the launcher for lack of memory (MemoryMax of the launcher's unit)",
            recoverable=True,
            code=Code.UNAVAILABLE,
        )


def _served(greeting: frames.Frame) -> frames.Frame:
    """Returns a greeting.

    Raises:
        DriverError: code EXHAUSTED; the launcher has refused the connection.
    """
    if greeting.get("event") == protocol.FAILED:
        error = DriverError.from_wire(greeting.get("error"))
        if error.code is Code.EXHAUSTED:
            raise error
    return greeting


def _make_private(directory: Path) -> None:
    try:
        make_private(directory)
    except OSError as error:
        raise DriverError(
            f"cannot create the driver's state directory {directory}",
            details=error.strerror or "",
            resolution=advice(error) or "run as root, or set state_dir in the plugin block",
            recoverable=bool(advice(error)),
            code=Code.EXHAUSTED,
        ) from error
