"""Gateway: the only door between Nomad's RPC services and the actors.

Every method is a coroutine or an async generator of the event loop and never blocks it. Failures
are DriverError. An id that no actor knows is DriverError(NOT_FOUND) with Nomad's own text
"task not found for given id", except where a method says otherwise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from actors.model.nomad import (
    ExecInput,
    ExecOutput,
    ExecResult,
    ExitResult,
    Fingerprint,
    StartedTask,
    TaskConfig,
    TaskEvent,
    TaskStatus,
    TaskUsage,
)
from actors.model.settings import DriverSettings, TaskOptions
from actors.provision import log_ends
from proto.errors import Code, DriverError


class Gateway(ABC):
    """The driver as its callers see it. Lives as long as the plugin process."""

    @abstractmethod
    async def configure(self, settings: DriverSettings) -> None:
        """Takes the driver's settings; may come several times and touches no task."""

    @abstractmethod
    async def start_task(self, task: TaskConfig, options: TaskOptions) -> StartedTask:
        """Starts the task and returns when its process runs. A failure has undone every step."""

    async def start_failed(self, task: TaskConfig, error: Exception) -> None:
        """Ends the logs of a task whose start has failed, before Nomad hears of the failure.

        The logs of a task that runs already go on.
        """
        if not isinstance(error, DriverError) or error.code is not Code.ALREADY_EXISTS:
            await log_ends.end_readers(task)

    @abstractmethod
    async def recover_task(self, task: TaskConfig, version: int, driver_state: bytes) -> None:
        """Takes a task over from an earlier plugin. NOT_FOUND after cleaning what is left of it."""

    @abstractmethod
    async def wait_task(self, task_id: str) -> ExitResult:
        """Returns when the task has ended; at once if it has. Any number of callers."""

    @abstractmethod
    async def stop_task(self, task_id: str, timeout_s: float, signal: str) -> None:
        """Signals, waits, kills. Returns when the process has ended; an unknown task is fine."""

    @abstractmethod
    async def destroy_task(self, task_id: str, *, force: bool) -> None:
        """Removes container, snapshot, worker and state. An unknown id is removed by its name."""

    @abstractmethod
    async def inspect_task(self, task_id: str) -> TaskStatus:
        """Returns what the driver knows of the task now."""

    @abstractmethod
    def task_stats(self, task_id: str, interval_s: float) -> AsyncGenerator[TaskUsage, None]:
        """Samples every interval until the task ends; the first one comes at once."""

    @abstractmethod
    def task_events(self) -> AsyncGenerator[TaskEvent, None]:
        """Events of all tasks from now on, for ever."""

    @abstractmethod
    def fingerprints(self) -> AsyncGenerator[Fingerprint, None]:
        """First one at once, then on change, for ever."""

    @abstractmethod
    async def signal_task(self, task_id: str, signal: str) -> None:
        """Sends a signal by name or number to the task's first process."""

    @abstractmethod
    async def exec_task(self, task_id: str, command: Sequence[str], timeout_s: float) -> ExecResult:
        """Runs a command in the task and collects its output; kills it at the timeout."""

    @abstractmethod
    def exec_task_streaming(
        self, task_id: str, command: Sequence[str], *, tty: bool, inputs: AsyncIterator[ExecInput]
    ) -> AsyncGenerator[ExecOutput, None]:
        """Runs a command with its streams attached. Closing the iterator kills the command."""

    @abstractmethod
    async def shutdown(self) -> None:
        """Lets go of everything; tasks keep running."""
