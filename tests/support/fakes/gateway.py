"""A gateway without containers, behind the services in the RPC tests.

The image of a task decides its behaviour: `fail-final`, `fail-recoverable` and `fail-unexpected`
fail to start; all other tasks run until a stop. Exec starts no process: `echo` returns its
arguments, `cat` its stdin, `forever` ends with its caller, `half` ends without an exit, `break`
raises.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field

from actors.gateway import Gateway
from actors.model.nomad import (
    CpuUsage,
    ExecInput,
    ExecOutput,
    ExecResult,
    ExitResult,
    Fingerprint,
    Health,
    MemoryUsage,
    StartedTask,
    TaskConfig,
    TaskEvent,
    TaskState,
    TaskStatus,
    TaskUsage,
)
from actors.model.settings import DriverSettings, TaskOptions
from proto.errors import Code, DriverError

_log = logging.getLogger("fake")
HANDLE_VERSION = 2
STARTED_AT_NS = 1_700_000_000_123_456_789


@dataclass
class FakeTask:
    """A task without a process."""

    config: TaskConfig
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    result: ExitResult | None = None


class FakeGateway(Gateway):
    """A gateway with its tasks in a dict. `closed` names the streams with a closed generator."""

    def __init__(self) -> None:
        super().__init__()
        self.settings: DriverSettings | None = None
        self.tasks: dict[str, FakeTask] = {}
        self.closed: list[str] = []
        self.wait_failures = 1
        self.stream_failures = 1
        self._events: asyncio.Queue[TaskEvent] = asyncio.Queue()

    async def configure(self, settings: DriverSettings) -> None:
        """See `Gateway`."""
        self.settings = settings

    def _task(self, task_id: str) -> FakeTask:
        if task_id not in self.tasks:
            raise DriverError("task not found for given id", code=Code.NOT_FOUND)
        return self.tasks[task_id]

    def collects_logs(self) -> bool:
        return self.settings is not None and self.settings.log_collection == "driver"

    def creates_networks(self) -> bool:
        return self.settings is not None and self.settings.network_creation == "driver"

    async def start_task(self, task: TaskConfig, options: TaskOptions) -> StartedTask:
        """See `Gateway`."""
        match options.image:
            case "fail-final":
                raise DriverError("this image is wrong for ever", code=Code.INVALID)
            case "fail-recoverable":
                raise DriverError("the registry is away", recoverable=True, code=Code.UNAVAILABLE)
            case "fail-long":
                raise DriverError("ä%\n" * 5000, recoverable=True)
            case "fail-unexpected":
                raise ZeroDivisionError("a defect\nof two lines")
        if task.id in self.tasks:
            raise DriverError(f'task with ID "{task.id}" already started', code=Code.ALREADY_EXISTS)
        self.tasks[task.id] = FakeTask(task)
        await self._events.put(
            TaskEvent(
                task_id=task.id,
                alloc_id=task.alloc_id,
                task_name=task.name,
                timestamp_ns=STARTED_AT_NS,
                message=f"started with {sum(map(len, task.env.values()))} bytes of environment",
                annotations={"image": options.image},
            )
        )
        return StartedTask(handle_version=HANDLE_VERSION, driver_state=task.id.encode())

    async def recover_task(self, task: TaskConfig, version: int, driver_state: bytes) -> None:
        """See `Gateway`."""
        if version != HANDLE_VERSION or driver_state != task.id.encode():
            raise DriverError("failed to decode task state from handle", code=Code.INVALID)
        self.tasks.setdefault(task.id, FakeTask(task))

    async def wait_task(self, task_id: str) -> ExitResult:
        """See `Gateway`. Fails once for a passing reason and once for an unexpected one."""
        task = self._task(task_id)
        self.wait_failures += 1
        if self.wait_failures == 2:
            raise DriverError("containerd is away", code=Code.UNAVAILABLE)
        if self.wait_failures == 3:
            raise ZeroDivisionError("a defect in wait")
        await task.ended.wait()
        assert task.result is not None
        return task.result

    async def stop_task(self, task_id: str, timeout_s: float, signal: str) -> None:
        """See `Gateway`. The signal's number becomes the exit code."""
        task = self.tasks.get(task_id)
        if task is not None:
            task.result = ExitResult(exit_code=int(signal or 0), error=f"after {timeout_s:g} s")
            task.ended.set()

    async def destroy_task(self, task_id: str, *, force: bool) -> None:
        """See `Gateway`."""
        if task_id in self.tasks and not self.tasks[task_id].ended.is_set() and not force:
            raise DriverError("cannot destroy running task", code=Code.PRECONDITION)
        self.tasks.pop(task_id, None)

    async def inspect_task(self, task_id: str) -> TaskStatus:
        """See `Gateway`."""
        task = self._task(task_id)
        return TaskStatus(
            id=task_id,
            name=task.config.name,
            state=TaskState.EXITED if task.ended.is_set() else TaskState.RUNNING,
            started_at_ns=STARTED_AT_NS,
            completed_at_ns=0,
            result=task.result or ExitResult(exit_code=0),
            driver_attributes={"containerName": f"{task.config.name}-{task.config.alloc_id}"},
        )

    async def task_stats(self, task_id: str, interval_s: float) -> AsyncGenerator[TaskUsage, None]:
        """See `Gateway`. The interval comes back as the number of ticks."""
        task = self._task(task_id)
        cpu = CpuUsage(
            percent=1.5, user_percent=1, system_percent=0.5, total_ticks=interval_s, throttled_ns=7
        )
        try:
            while not task.ended.is_set():
                memory = MemoryUsage(usage=4096, rss=None, swap=0)
                yield TaskUsage(task_id=task_id, timestamp_ns=STARTED_AT_NS, cpu=cpu, memory=memory)
                await asyncio.wait([asyncio.create_task(task.ended.wait())], timeout=interval_s)
        finally:
            self.closed.append("stats")

    async def task_events(self) -> AsyncGenerator[TaskEvent, None]:
        """See `Gateway`."""
        while True:
            yield await self._events.get()

    async def fingerprints(self) -> AsyncGenerator[Fingerprint, None]:
        """See `Gateway`. The first generator ends by a defect, the next goes on."""
        attributes: dict[str, bool | int | float | str] = {
            "driver.fake": True,
            "count": 3,
            "share": 0.5,
            "word": "yes",
        }
        yield Fingerprint(health=Health.HEALTHY, description="Healthy", attributes=attributes)
        if self.stream_failures:
            self.stream_failures -= 1
            raise ZeroDivisionError("a defect in the fingerprint")
        await asyncio.Event().wait()

    async def signal_task(self, task_id: str, signal: str) -> None:
        """See `Gateway`."""
        self._task(task_id)
        if not signal.startswith("SIG"):
            raise DriverError(f"Invalid signal: {signal}", code=Code.INVALID)

    async def exec_task(self, task_id: str, command: Sequence[str], timeout_s: float) -> ExecResult:
        """See `Gateway`."""
        self._task(task_id)
        words = " ".join(command).encode()
        return ExecResult(
            stdout=words, stderr=b"%g" % timeout_s, exit=ExitResult(exit_code=len(command))
        )

    async def exec_task_streaming(
        self, task_id: str, command: Sequence[str], *, tty: bool, inputs: AsyncIterator[ExecInput]
    ) -> AsyncGenerator[ExecOutput, None]:
        """See `Gateway`."""
        self._task(task_id)
        reader: asyncio.Task[None] | None = None
        try:
            yield ExecOutput()
            match list(command):
                case ["cat"]:
                    async for item in inputs:
                        if item.resize:
                            yield ExecOutput(stderr=f"{tty} {item.resize}".encode())
                        if item.stdin:
                            yield ExecOutput(stdout=item.stdin)
                        if item.stdin_close:
                            break
                    yield ExecOutput(stdout_close=True)
                case ["forever"]:
                    reader = asyncio.create_task(_read_all(inputs))
                    yield ExecOutput(stdout=b"running")
                    await asyncio.Event().wait()
                case ["break"]:
                    raise ZeroDivisionError("a defect in exec")
                case ["half"]:
                    return
                case words:
                    yield ExecOutput(stdout=" ".join(words).encode())
            yield ExecOutput(exit=ExitResult(exit_code=7))
        finally:
            if reader is not None:
                reader.cancel()
            self.closed.append("exec")
            _log.info("exec closed", extra={"pid": os.getpid(), "command": " ".join(command)})


async def _read_all(inputs: AsyncIterator[ExecInput]) -> None:
    async for _ in inputs:
        pass
