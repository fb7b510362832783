"""One command run inside a task, its streams carried over FIFOs of its own.

Order that loses nothing: read both outputs to their end (the shim closes them when it has copied
all), then Wait, then Delete: containerd's Delete drops what is not copied after 2 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import TYPE_CHECKING

from actors.exec.errors import directory_is_gone, in_few_words
from actors.exec.fifo import FifoReader, FifoWriter
from actors.exec.remains import hold, kill
from actors.files import tree_removal
from actors.lifecycle.retry import Patience
from actors.model.nomad import ExecInput, ExecOutput, ExitResult
from actors.provision import oom_score
from containerd.api import deadlines
from containerd.api.records import Streams
from containerd.spec.build import encoded_for_exec
from proto.errors import Code, DriverError
from proto.exhaustion import exhausted

if TYPE_CHECKING:
    from actors.lifecycle.running import RunningTask

# After the command has ended, something it left in the background may still hold its outputs.
_LINGER_S = 1.0
_CLOSE_S = 10.0
_AGAIN_AFTER_S = (0.05, 0.2, 1.0)
_LOOK_S = 5.0
_FIRST_SIZE_S = 0.1
_QUEUE = 64
_log = logging.getLogger(__name__)


class LostDirectoryError(DriverError):
    """The working directory of a command is not there any more."""


class ExecSession:
    """Belongs to the event loop; `open` makes it, `close` leaves nothing of it behind.

    directory is where the command runs in the place of the task's working directory.
    """

    def __init__(self, task: RunningTask, *, terminal: bool, directory: str = "") -> None:
        self._services = task.services
        self._container = task.state.container_id
        self._task_pid = task.state.pid
        self._pid = 0
        self._terminal = terminal
        self.cwd = directory
        self._id = f"exec-{secrets.token_hex(8)}"
        self._directory = task.directory / self._id
        self._stdin: FifoWriter | None = None
        self._outputs: list[FifoReader] = []
        self._lock = -1
        self._created = False
        self._exited = False

    async def open(self, command: Sequence[str], size: tuple[int, int] | None) -> None:
        """Starts the command; size is (height, width) of its terminal.

        Raises:
            LostDirectoryError: the task's working directory is not there any more.
            DriverError: the command cannot be run.
        """
        containerd = self._services.containerd
        with deadlines.within(_LOOK_S):  # shorter than what a caller gives the whole command
            record = await containerd.containers.get(self._container)
        if record is None:
            raise DriverError(
                f"container {self._container} is gone, exec is not possible", code=Code.NOT_FOUND
            )
        process, encoded = await asyncio.to_thread(
            encoded_for_exec,
            record.spec_json,
            list(command),
            terminal=self._terminal,
            size=size,
            cwd=self.cwd,
        )
        self.cwd = str(process["cwd"])
        try:
            stdin, stdout, stderr = self._make_fifos()
        except OSError as error:
            raise exhausted("no command can be run: its FIFOs cannot be made", error) from error
        self._created = True  # before it is: the answer may get lost
        try:
            await containerd.tasks.create_exec(
                self._container,
                self._id,
                encoded,
                Streams(stdin=stdin, stdout=stdout, stderr=stderr, terminal=self._terminal),
            )
            self._pid = await containerd.tasks.start_exec(self._container, self._id)
        except DriverError as error:
            short = in_few_words(error, command, self.cwd)
            if directory_is_gone(error):
                raise LostDirectoryError(short.brief, code=short.code) from error
            raise short from error
        oom_score.give(self._pid, self._container, process["oomScoreAdj"])

    def _make_fifos(self) -> tuple[str, str, str]:
        self._directory.mkdir(mode=0o700)
        # Held while this process lives: of one that is gone, others may remove it.
        self._lock = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        names = ["stdin", "stdout"] + ([] if self._terminal else ["stderr"])
        for name in names:
            os.mkfifo(self._directory / name, 0o600)
        self._stdin = FifoWriter(self._directory / "stdin")
        for name in names[1:]:
            # One by one: those that are open are closed when the next cannot be opened.
            self._outputs.append(FifoReader(self._directory / name))
        paths = [str(self._directory / name) for name in names]
        return paths[0], paths[1], paths[2] if len(paths) > 2 else ""  # noqa: PLR2004

    async def outputs(self) -> AsyncGenerator[ExecOutput, None]:
        """Returns what the command writes, then the close of each stream, then its exit, alone."""
        queue: asyncio.Queue[ExecOutput | None] = asyncio.Queue(_QUEUE)
        pumps = [
            asyncio.create_task(_pump(reader, queue, stderr=index == 1))
            for index, reader in enumerate(self._outputs)
        ]
        waiter = asyncio.create_task(self._wait(pumps))
        try:
            open_streams = len(pumps)
            while open_streams:
                output = await queue.get()
                if output is None:
                    open_streams -= 1
                else:
                    yield output
            yield ExecOutput(exit=await waiter)
        finally:
            for job in (*pumps, waiter):
                job.cancel()
            await asyncio.wait([*pumps, waiter])

    async def _wait(self, pumps: list[asyncio.Task[None]]) -> ExitResult:
        containerd = self._services.containerd
        # The command goes on while containerd restarts.
        ended = await Patience()(lambda: containerd.tasks.wait(self._container, self._id))
        self._exited = True
        done, late = await asyncio.wait(pumps, timeout=_LINGER_S)
        del done
        for reader in self._outputs if late else ():
            reader.stop_when_empty()
        return ExitResult(exit_code=ended.code)

    async def feed(self, inputs: AsyncIterator[ExecInput]) -> None:
        """Carries stdin and window sizes to the command until the client closes stdin."""
        async for item in inputs:
            if item.resize is not None and self._terminal:
                height, width = item.resize
                with contextlib.suppress(DriverError):  # it may have ended meanwhile
                    await self._services.containerd.tasks.resize(
                        self._container, self._id, width=width, height=height
                    )
            if item.stdin and self._stdin is not None:
                await self._stdin.write(item.stdin)
            if item.stdin_close:
                await self.close_stdin()

    async def close_stdin(self) -> None:
        """Ends the command's stdin: ours first, then the copy that the shim keeps open."""
        if self._stdin is None:
            return
        self._stdin.close()
        self._stdin = None
        with contextlib.suppress(DriverError):  # it may have ended meanwhile
            await self._services.containerd.tasks.close_stdin(self._container, self._id)

    async def close(self) -> None:
        """Kills the command if it still runs and removes all that was made for it."""
        if self._created:
            try:
                with deadlines.within(_CLOSE_S):
                    await self._remove()
            except (DriverError, TimeoutError) as error:
                _log.warning("exec not removed", extra={"id": self._container, "why": str(error)})
        if self._stdin is not None:
            self._stdin.close()
        for reader in self._outputs:
            reader.close()
        await asyncio.to_thread(tree_removal.remove, self._directory)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    async def _remove(self) -> None:
        containerd = self._services.containerd
        if not self._exited:
            started = await asyncio.to_thread(hold, self._pid, self._task_pid)
            with contextlib.suppress(DriverError):
                try:
                    await containerd.tasks.kill(
                        self._container, signal.SIGKILL, everyone=False, exec_id=self._id
                    )
                finally:
                    kill(started)
                await asyncio.wait_for(
                    containerd.tasks.wait(self._container, self._id), _LINGER_S * 5
                )
        # One that was killed may take a moment to end, where nobody could wait for it.
        for pause_s in (*_AGAIN_AFTER_S, None):
            try:
                await containerd.tasks.delete_exec(self._container, self._id)
            except DriverError:
                if pause_s is None:
                    raise
                await asyncio.sleep(pause_s)
            else:
                return


async def _pump(
    reader: FifoReader, queue: asyncio.Queue[ExecOutput | None], *, stderr: bool
) -> None:
    while data := await reader.read():
        await queue.put(ExecOutput(stderr=data) if stderr else ExecOutput(stdout=data))
    await queue.put(ExecOutput(stderr_close=True) if stderr else ExecOutput(stdout_close=True))
    await queue.put(None)


async def _peek(
    inputs: AsyncIterator[ExecInput],
) -> tuple[ExecInput | None, AsyncGenerator[ExecInput, None]]:
    """The client's first message, if it comes at once, and an iterator over all of them.

    Nomad sends the window's size right after the command; so a shell starts in the right one.
    """
    first = asyncio.ensure_future(anext(inputs, None))
    await asyncio.wait([first], timeout=_FIRST_SIZE_S)

    async def everything() -> AsyncGenerator[ExecInput, None]:
        item = await first
        if item is not None:
            yield item
            async for later in inputs:
                yield later

    return (first.result() if first.done() else None), everything()


def _in_root(lost: str, *, terminal: bool) -> ExecOutput:
    """Returns the line that tells a command's user that its working directory is gone."""
    end = "\r\n" if terminal else "\n"
    text = f"containerd-driver: {lost} is gone, so the command runs in /{end}".encode()
    return ExecOutput(stdout=text) if terminal else ExecOutput(stderr=text)


async def stream(
    task: RunningTask,
    command: Sequence[str],
    *,
    terminal: bool,
    inputs: AsyncIterator[ExecInput],
) -> AsyncGenerator[ExecOutput, None]:
    """A whole session: opened, fed from `inputs`, closed whatever happens."""
    session = ExecSession(task, terminal=terminal)
    feeder: asyncio.Task[None] | None = None
    try:
        first, rest = await _peek(inputs) if terminal else (None, inputs)
        size = first.resize if first else None
        try:
            await session.open(command, size)
        except LostDirectoryError:
            lost = session.cwd
            await session.close()
            session = ExecSession(task, terminal=terminal, directory="/")
            await session.open(command, size)
            yield _in_root(lost, terminal=terminal)
        feeder = asyncio.create_task(session.feed(rest))
        async with contextlib.aclosing(session.outputs()) as outputs:
            async for output in outputs:
                yield output
    finally:
        if feeder is not None:
            feeder.cancel()
            await asyncio.gather(feeder, return_exceptions=True)
        await asyncio.shield(session.close())
