"""The plugin's end of the launcher: finds it, starts it where nobody else does, has workers forked.

The connection on which a fork was asked for becomes the worker's first control connection, so a
worker costs one connect, one frame and one fork.
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

_START_TIMEOUT_S = 10.0
_FORK_TIMEOUT_S = 10.0
_POLL_S = 0.005
_SAID_BYTES = 4096
_HELLOS = 2
"""A launcher may die over the first; where systemd listens, its successor hears the second."""
_log = logging.getLogger(__name__)


class LauncherLink:
    """Belongs to the event loop. Holds no connection between forks: the launcher may restart."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._starting = asyncio.Lock()

    async def ensure(self) -> None:
        """Has a launcher listen, of this release if that can be; returns at once when one does.

        Raises:
            DriverError: code UNAVAILABLE, with what the launcher's log says. Code DENIED; another
                user can change the state directory, or listens there.
        """
        async with self._starting:
            await asyncio.to_thread(_make_private, self._state_dir)
            greeting = await self._hello()
            if greeting is not None and greeting.get("release") != RELEASE:
                _log.info(
                    "launcher of another release retires",
                    extra={"release": str(greeting.get("release"))},
                )
                with contextlib.suppress(OSError, DriverError):
                    await self._ask({"op": protocol.RETIRE, **protocol.STATED})
                # Where systemd listens, this has it start the one on disk: that is the one to take.
                greeting = await self._hello()
            if greeting is None:
                await self._start()

    async def fork(self, spec: protocol.WorkerSpec) -> WorkerLink:
        """A new worker, its log keepers open, listening in its task's state directory.

        Raises:
            DriverError: why the worker could not be made.
        """
        try:
            return await self._fork(spec)
        except (OSError, DriverError) as error:
            if isinstance(error, OSError) and advice(error):
                raise exhausted("the launcher of task workers cannot be asked", error) from error
            # A launcher without a version in common retires: another is started.
            if isinstance(error, DriverError) and error.code is not Code.UNSUPPORTED:
                raise
            await self.ensure()
        try:
            return await self._fork(spec)
        except OSError as error:
            raise self._away(str(error)) from error

    async def _fork(self, spec: protocol.WorkerSpec) -> WorkerLink:
        reader, writer = await connect_unix(self._socket)
        link = WorkerLink(reader, writer)
        # A worker without any connection, that was told nothing yet, ends by itself.
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
        """Returns the launcher's answer to a fork: the worker's first frame, or the refusal."""
        first: asyncio.Future[frames.Frame | None]
        first = asyncio.get_running_loop().create_future()

        def heard(frame: frames.Frame | None) -> None:
            if not first.done():
                first.set_result(frame)

        link.listen(heard)
        try:
            frame = await asyncio.wait_for(first, _FORK_TIMEOUT_S)
        except TimeoutError:
            raise self._away(f"no worker within {_FORK_TIMEOUT_S:g} s") from None
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
                    raise exhausted(
                        "the launcher of task workers cannot be asked", error
                    ) from error
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
            raise self._away("it does not answer") from error
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
        """Its stderr is ours until it serves: what it dies of before may keep its log empty."""
        deadline = asyncio.get_running_loop().time() + _START_TIMEOUT_S
        while await self._hello() is None:
            # It either detaches (exit 0) or stays; any other end is a failure.
            if process.poll() not in {None, 0}:
                said = process.stderr.read(_SAID_BYTES) if process.stderr else b""
                why = said.decode(errors="replace").strip().rpartition("launcher: ")[2]
                raise self._away(f"it ended with status {process.returncode}: {why}")
            if asyncio.get_running_loop().time() > deadline:
                raise self._away(f"it does not listen after {_START_TIMEOUT_S:g} s")
            await asyncio.sleep(_POLL_S)

    def _away(self, details: str) -> DriverError:
        return DriverError(
            "the launcher of task workers is not reachable",
            details=details,
            resolution=f"see {self._state_dir / protocol.LAUNCHER_LOG}, and dmesg: the kernel may"
            " kill it for want of memory (MemoryMax of its unit)",
            recoverable=True,
            code=Code.UNAVAILABLE,
        )


def _served(greeting: frames.Frame) -> frames.Frame:
    """The greeting, where it is one and not why there is none.

    Raises:
        DriverError: code EXHAUSTED.
    """
    why = greeting.get("error")
    if greeting.get("event") == protocol.FAILED and isinstance(why, dict):
        error = DriverError.from_wire(why)
        if error.code is Code.EXHAUSTED:
            raise error
    return greeting


def _make_private(directory: Path) -> None:
    try:
        make_private(directory)
    except OSError as error:
        raise DriverError(
            f"cannot make the driver's state directory {directory}",
            details=error.strerror or "",
            resolution=advice(error) or "run as root, or set state_dir in the plugin block",
            recoverable=bool(advice(error)),
            code=Code.EXHAUSTED,
        ) from error
