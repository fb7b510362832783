"""Commands that run inside a task. FIFOs carry the streams of each command.

No output is lost in this order: read both outputs to the end (the shim closes the outputs after
the last copied byte), then Wait, then Delete. containerd's Delete drops bytes that are not copied
after 2 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import secrets
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import TYPE_CHECKING

from actors.exec import options
from actors.exec import user as exec_user
from actors.exec.errors import directory_is_gone, in_few_words
from actors.exec.fifo import FifoReader, FifoWriter
from actors.exec.options import ExecOptions
from actors.exec.remains import kill, open_started
from actors.files import tree_removal
from actors.lifecycle.retry import Retry, retry
from actors.model.log_keys import elapsed_ms
from actors.model.nomad import ExecInput, ExecOutput, ExitResult
from actors.provision import oom_score
from containerd.api import deadlines
from containerd.api.records import Streams
from containerd.spec.exec_process import Command, encoded, process_for_exec
from proto.errors import Code, DriverError
from proto.exhaustion import exhausted

if TYPE_CHECKING:
    from actors.lifecycle.running import RunningTask
    from containerd.documents import Document

# After the command's end, a background process of the command may still hold the outputs.
_LINGER_S = 1.0
_CLOSE_S = 10.0
_PAUSES_S = (0.05, 0.2, 1.0)
_LOOKUP_S = 5.0
_FIRST_SIZE_S = 0.1
_QUEUE = 64
_log = logging.getLogger(__name__)


class LostDirectoryError(DriverError):
    """The working directory of a command does not exist any more."""


class ExecSession:
    """A command inside a task. Belongs to the event loop. `close` removes every trace.

    Args:
        task: the task.
        terminal: True gives the command a terminal, and no stderr of its own.
        directory: working directory of the command; empty means the task's working directory.
    """

    def __init__(self, task: RunningTask, *, terminal: bool, directory: str = "") -> None:
        self._services = task.services
        self._container = task.state.container_id
        self._task_pid = task.state.pid
        self._pid = 0
        self._root_allowed = "root" in task.gates.exec_options
        self._terminal = terminal
        self.cwd = directory
        self._id = f"exec-{secrets.token_hex(8)}"
        self._directory = task.directory / self._id
        self._stdin: FifoWriter | None = None
        self._outputs: list[FifoReader] = []
        self._lock = -1
        self._created = False
        self._exited = False
        self._begun = time.monotonic()
        self._keys = {
            "task_id": task.task_id,
            "alloc_id": task.alloc_id,
            "container_id": self._container,
            "exec_id": self._id,
        }

    async def open(self, command: ExecOptions, size: tuple[int, int] | None) -> None:
        """Starts the command.

        Args:
            command: the program and the arguments, with options.
            size: (height, width) of the terminal in characters; None for the runtime's default.

        Raises:
            LostDirectoryError: the task's working directory does not exist any more.
            DriverError: the command cannot be run.
        """
        containerd = self._services.containerd
        with deadlines.within(_LOOKUP_S):  # shorter than a caller's limit for the command
            record = await containerd.containers.get(self._container)
        if record is None:
            raise DriverError(
                f"cannot run a command: container {self._container} does not exist",
                code=Code.NOT_FOUND,
            )
        process, packed = await asyncio.to_thread(self._process, record.spec_json, command, size)
        self.cwd = str(process["cwd"])
        try:
            stdin, stdout, stderr = self._make_fifos()
        except OSError as error:
            raise exhausted("cannot run a command: cannot create the FIFOs", error) from error
        self._created = True  # set before the call, because the answer may get lost
        try:
            await containerd.tasks.create_exec(
                self._container,
                self._id,
                packed,
                Streams(stdin=stdin, stdout=stdout, stderr=stderr, terminal=self._terminal),
            )
            self._log_step("exec created")
            self._pid = await containerd.tasks.start_exec(self._container, self._id)
            self._log_step("exec started", pid=self._pid)
        except DriverError as error:
            short = in_few_words(error, command.command, self.cwd)
            if directory_is_gone(error):
                raise LostDirectoryError(short.brief, code=short.code) from error
            raise short from error
        oom_score.set_score(self._pid, self._container, process["oomScoreAdj"])

    def _process(
        self, spec_json: bytes, wanted: ExecOptions, size: tuple[int, int] | None
    ) -> tuple[Document, bytes]:
        """Builds the OCI process and its JSON. Blocks: the job decides the size of the spec."""
        spec: Document = json.loads(spec_json)
        user = None
        if wanted.user:
            user = exec_user.resolve(wanted.user, self._container, self._task_pid)
            if not self._root_allowed:
                exec_user.check_root(user, spec["process"])
        command = Command(
            words=wanted.command,
            terminal=self._terminal,
            size=size,
            cwd=self.cwd or wanted.cwd,
            user=user,
            env=wanted.env,
        )
        process = process_for_exec(spec, command)
        return process, encoded(process)

    def _log_step(self, text: str, **more: object) -> None:
        _log.debug(text, extra={**self._keys, **more, "elapsed_ms": elapsed_ms(self._begun)})

    def _make_fifos(self) -> tuple[str, str, str]:
        self._directory.mkdir(mode=0o700)
        # The lock lasts as long as this process. Without the lock another plugin may remove the
        # directory.
        self._lock = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        names = ["stdin", "stdout"] + ([] if self._terminal else ["stderr"])
        for name in names:
            os.mkfifo(self._directory / name, 0o600)
        self._stdin = FifoWriter(self._directory / "stdin")
        for name in names[1:]:
            # Appended singly: `close` then finds the open FIFOs if the next cannot be opened.
            self._outputs.append(FifoReader(self._directory / name))
        paths = [str(self._directory / name) for name in names]
        return paths[0], paths[1], paths[2] if len(paths) > 2 else ""  # noqa: PLR2004

    async def outputs(self) -> AsyncGenerator[ExecOutput, None]:
        """Yields the output of the command, then the close of each stream, then the exit alone."""
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
            for task in (*pumps, waiter):
                task.cancel()
            await asyncio.wait([*pumps, waiter])

    async def _wait(self, pumps: list[asyncio.Task[None]]) -> ExitResult:
        containerd = self._services.containerd
        # The command continues while containerd restarts.
        ended = await Retry()(lambda: containerd.tasks.wait(self._container, self._id))
        self._exited = True
        self._log_step("exec ended", exit_code=ended.code)
        done, late = await asyncio.wait(pumps, timeout=_LINGER_S)
        del done
        for reader in self._outputs if late else ():
            reader.stop_when_empty()
        return ExitResult(exit_code=ended.code)

    async def feed(self, inputs: AsyncIterator[ExecInput]) -> None:
        """Sends stdin and window sizes to the command until the client closes stdin.

        Args:
            inputs: the client's messages.
        """
        async for item in inputs:
            if item.resize is not None and self._terminal:
                height, width = item.resize
                with contextlib.suppress(DriverError):  # the command may have ended meanwhile
                    await self._services.containerd.tasks.resize(
                        self._container, self._id, width=width, height=height
                    )
            if item.stdin and self._stdin is not None:
                await self._stdin.write(item.stdin)
            if item.stdin_close:
                await self.close_stdin()

    async def close_stdin(self) -> None:
        """Closes the command's stdin: the session's end first, then the copy in the shim."""
        if self._stdin is None:
            return
        self._stdin.close()
        self._stdin = None
        with contextlib.suppress(DriverError):  # the command may have ended meanwhile
            await self._services.containerd.tasks.close_stdin(self._container, self._id)

    async def close(self) -> None:
        """Kills the command if the command still runs, and removes the exec's objects."""
        if self._created:
            try:
                with deadlines.within(_CLOSE_S):
                    await self._remove()
            except (DriverError, TimeoutError) as error:
                _log.warning("exec not removed", extra={**self._keys, "reason": str(error)})
            else:
                self._log_step("exec removed")
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
            started = await asyncio.to_thread(open_started, self._pid, self._task_pid)
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
        # A killed command may need a moment to end, and containerd may be unable to wait for it.
        await retry(_PAUSES_S, lambda: containerd.tasks.delete_exec(self._container, self._id))


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
    """Waits briefly for the client's first message.

    Nomad sends the window's size directly after the command. With the size a shell starts in a
    window of the right size.

    Returns:
        The first message or None, and an iterator over all messages.
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
    """Builds the line about a lost working directory for the command's user."""
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
    """Runs a command in a task, and removes the command when the iterator is closed.

    If the task's working directory does not exist any more, the command runs in `/`, and the first
    output says so.

    Args:
        task: the running task.
        command: the program and the arguments, or options and these, see `actors.exec.options`.
        terminal: True gives the command a terminal; stdout then contains stderr too.
        inputs: the client's messages: stdin, the close of stdin, window sizes.

    Yields:
        Output, the close of each stream, and at last the exit alone.

    Raises:
        DriverError: the command cannot be run; code INVALID for a wrong command, NOT_FOUND if the
            container does not exist.
    """
    marked = bool(command) and command[0] == options.MARK
    wanted = (
        options.read(command, task.gates.exec_options)
        if marked
        else ExecOptions(command=tuple(command))
    )
    session = ExecSession(task, terminal=terminal)
    feeder: asyncio.Task[None] | None = None
    try:
        first, rest = await _peek(inputs) if terminal else (None, inputs)
        size = first.resize if first else None
        try:
            await session.open(wanted, size)
        except LostDirectoryError:
            if wanted.cwd:
                raise
            lost = session.cwd
            await session.close()
            session = ExecSession(task, terminal=terminal, directory="/")
            await session.open(wanted, size)
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
