"""A plugin process on a fake containerd, for starts that fail."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from containerd.api import methods
from containerd.api.methods import Method
from proto.errors import DriverError
from tests.support.fakes.containerd import FakeContainerd
from tests.support.plugin.driver import Driver, Job, children
from tests.support.waiting import until
from tests.support.workers.launcher import launcher_pid

T = TypeVar("T")
IMAGE = "127.0.0.1:9/stage:1"
SLEEPER = "echo ready; exec sleep 600"

# The calls of a start whose image is there, in order, and what the user reads when one fails.
STEPS: dict[str, tuple[Method[Any, Any], str]] = {
    "image": (methods.IMAGE_GET, "containerd cannot look up image"),
    "snapshot of the image": (methods.SNAPSHOT_STAT, "containerd cannot look up snapshot"),
    "snapshot": (methods.SNAPSHOT_PREPARE, "containerd cannot prepare snapshot"),
    "container": (methods.CONTAINER_CREATE, "containerd cannot create container"),
    "task": (methods.TASK_CREATE, "containerd cannot create the task of container"),
    "start": (methods.TASK_START, "containerd cannot start the task of container"),
}


class Stage:
    """A running plugin of a `with` block. `runner` has the event loop of the plugin's session."""

    def __init__(self, directory: Path, gc: Mapping[str, Any] | None = None, **config: Any) -> None:
        self.containerd = FakeContainerd()
        self.containerd.add_image(IMAGE)
        settings = {"gc": {"image": False, **(gc or {})}, **config}
        self.driver = Driver(self.containerd, directory, settings)
        self.session = self.driver.session
        self.runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self.containerd.start()
        self.play(self.session.launch())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.play(self.session.close())
        self.driver.close()
        self.containerd.close()
        self.runner.close()

    def play(self, story: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine to its end."""
        return self.runner.run(story)

    def reset(self) -> None:
        """Ends all faults; checks that the test's tasks leave nothing except allocations' files."""
        self.containerd.faults.clear()
        self.containerd.tasks.address = ""
        self.play(self.back())
        try:
            self.driver.wait_clean()
        finally:
            self.containerd.remove_all()
            for pid in children(launcher_pid(self.driver.state_dir)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            for left in (self.driver.state_dir / "tasks").glob("*"):
                shutil.rmtree(left, ignore_errors=True)
            shutil.rmtree(self.driver.alloc_root, ignore_errors=True)

    async def back(self) -> None:
        """Starts containerd and waits until the plugin reports a healthy containerd."""
        self.containerd.start()
        await self.driver.healthy()

    async def start(self, job: Job, script: str = SLEEPER, **options: Any) -> None:
        """Starts a task with a shell script."""
        await self.driver.start(job, IMAGE, script, **options)

    async def refusal(
        self, starting: Coroutine[Any, Any, object] | asyncio.Task[Any]
    ) -> DriverError:
        """Waits for a start's error and checks that no allocation has files of the start."""
        try:
            await starting
        except DriverError as error:
            assert list(self.driver.alloc_root.glob("*/*/.etc")) == []
            return error
        raise AssertionError("the start succeeded")

    @asynccontextmanager
    async def hanging(self, step: str, *, after: bool = False) -> AsyncIterator[asyncio.Task[None]]:
        """Starts a task that waits for containerd's answer at a step; the end clears the fault."""
        job = self.driver.task()
        fault = self.containerd.hang(STEPS[step][0], after=after)
        starting = asyncio.create_task(self.start(job))
        starting.set_name(job.id)
        await until(lambda: fault.calls or starting.done(), 20, f"no start reaches {step}")
        try:
            yield starting
        finally:
            self.containerd.faults.clear()

    def internal(self, step: str, *, after: bool = False) -> None:
        """Makes a step fail as containerd does for internal reasons."""
        text = "a disk full of sorrow: unknown"
        self.containerd.fail(STEPS[step][0], grpc.StatusCode.UNKNOWN, text, after=after)
