"""Gateway: the only interface between Nomad's RPC services and the actors.

Every method is a coroutine or an async generator and never blocks the event loop. Failures are
DriverError. An unknown task id is DriverError(NOT_FOUND) with Nomad's text "task not found for
given id", unless the method's docstring differs.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from actors.model.nomad import (
    ExecInput,
    ExecOutput,
    ExecResult,
    ExitResult,
    Fingerprint,
    NetworkIsolation,
    StartedTask,
    TaskConfig,
    TaskEvent,
    TaskStatus,
    TaskUsage,
)
from actors.model.settings import DriverSettings, TaskOptions
from actors.provision import alloc_networks, log_ends
from proto.errors import Code, DriverError


class Gateway(ABC):
    """The driver, as RPC services use the driver. Lives as long as the plugin process."""

    def __init__(self) -> None:
        # A creation and a removal of the same namespace must not overlap.
        self._networks = asyncio.Lock()

    @abstractmethod
    async def configure(self, settings: DriverSettings) -> None:
        """Applies the driver's settings. May be called several times, and changes no task."""

    @abstractmethod
    def collects_logs(self) -> bool:
        """Returns whether the driver writes the log files; False before `configure`."""

    @abstractmethod
    def creates_networks(self) -> bool:
        """Returns whether the driver creates networks, not Nomad; False before `configure`."""

    async def create_network(self, alloc_id: str, hostname: str) -> tuple[NetworkIsolation, bool]:
        """Creates an allocation's network namespace.

        Args:
            alloc_id: Nomad's id.
            hostname: the group's host name, or empty.

        Returns:
            The network; and False if the namespace was there already.
        """
        async with self._networks:
            return await asyncio.to_thread(alloc_networks.create, alloc_id, hostname)

    async def destroy_network(self, alloc_id: str) -> None:
        """Removes an allocation's network namespace; a missing namespace is no failure."""
        async with self._networks:
            await asyncio.to_thread(alloc_networks.destroy, alloc_id)

    @abstractmethod
    async def start_task(self, task: TaskConfig, options: TaskOptions) -> StartedTask:
        """Starts a task, and returns when the process runs. After a failure every step is undone.

        Raises:
            DriverError: code ALREADY_EXISTS for the id of a present task; else the failed step.
        """

    async def start_failed(self, task: TaskConfig, error: Exception) -> None:
        """Ends the logs of a task after a failed start, before Nomad receives the failure.

        If the start failed because the task already runs, the logs of the running task continue.
        """
        if not isinstance(error, DriverError) or error.code is not Code.ALREADY_EXISTS:
            await log_ends.end_readers(task)

    @abstractmethod
    async def recover_task(self, task: TaskConfig, version: int, driver_state: bytes) -> None:
        """Takes over a task of an earlier plugin.

        Args:
            task: Nomad's description of the task.
            version: version of the handle; 1 is the Go driver's.
            driver_state: bytes of the handle.

        Raises:
            DriverError: code NOT_FOUND if the task is gone; the remains are removed then.
        """

    @abstractmethod
    async def wait_task(self, task_id: str) -> ExitResult:
        """Waits for the end of the task. Any number of callers may wait."""

    @abstractmethod
    async def stop_task(self, task_id: str, timeout_s: float, signal: str) -> None:
        """Signals the task, waits, and sends SIGKILL. Returns when the process has ended.

        Args:
            task_id: Nomad's id. An unknown task counts as stopped.
            timeout_s: seconds between the signal and SIGKILL.
            signal: name or number of the signal; empty means the image's signal or SIGTERM.
        """

    @abstractmethod
    async def destroy_task(self, task_id: str, *, force: bool) -> None:
        """Removes container, snapshot, worker and state directory of a task.

        Args:
            task_id: Nomad's id. The container's name is built from an unknown id.
            force: True also removes a running task.
        """

    @abstractmethod
    async def inspect_task(self, task_id: str) -> TaskStatus:
        """Returns the present status of the task."""

    @abstractmethod
    def task_stats(self, task_id: str, interval_s: float) -> AsyncGenerator[TaskUsage, None]:
        """Yields the task's usage until the task ends; the first sample at once.

        Args:
            task_id: Nomad's id.
            interval_s: seconds between two samples; the option stats_interval has precedence.
        """

    @abstractmethod
    def task_events(self) -> AsyncGenerator[TaskEvent, None]:
        """Yields the events of all tasks. Never ends."""

    @abstractmethod
    def fingerprints(self) -> AsyncGenerator[Fingerprint, None]:
        """Yields a fingerprint at once, then after each change. Never ends."""

    @abstractmethod
    async def signal_task(self, task_id: str, signal: str) -> None:
        """Sends a signal, by name or number, to the task's first process."""

    @abstractmethod
    async def exec_task(self, task_id: str, command: Sequence[str], timeout_s: float) -> ExecResult:
        """Runs a command in the task and collects the end of the output.

        Args:
            task_id: Nomad's id.
            command: the program and the arguments.
            timeout_s: seconds until the command is killed; 0 is no limit.
        """

    @abstractmethod
    def exec_task_streaming(
        self, task_id: str, command: Sequence[str], *, tty: bool, inputs: AsyncIterator[ExecInput]
    ) -> AsyncGenerator[ExecOutput, None]:
        """Runs a command with streams. Closing the iterator kills the command.

        Args:
            task_id: Nomad's id.
            command: the program and the arguments.
            tty: True gives the command a terminal.
            inputs: the client's messages.
        """
