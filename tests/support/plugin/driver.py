"""A driver under test: a plugin process, a state directory, allocations, and a check for leaks."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, Unpack

from actors.exec.fifo import FifoReader
from actors.model.nomad import (
    DnsConfig,
    Health,
    NetworkIsolation,
    Resources,
    TaskConfig,
)
from actors.model.settings import DriverSettings
from plugin.host.agent.session import Handle
from plugin.host.run.allocdir import AllocDir
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.fakes.containerd import FakeContainerd
from tests.support.plugin.agent_session import AgentSession
from tests.support.plugin.plugin_dir import make_plugin_dir
from tests.support.waiting import slowed, wait_until
from tests.support.workers.launcher import end_launcher, launcher_pid, worker_pids

MIB = 1024 * 1024
_numbers = itertools.count()

SLEEPER = 'trap "exit 0" TERM; echo ready; while :; do sleep 0.1; done'
"""A script that says `ready` and ends with 0 at SIGTERM."""


class TaskFields(TypedDict, total=False):
    """Fields of a `TaskConfig` that few tests set."""

    user: str
    namespace: str
    node_id: str
    network: NetworkIsolation | None
    dns: DnsConfig | None


@dataclass(slots=True)
class Job:
    """A task with an allocation; `out` and `err` collect the task's output."""

    config: TaskConfig
    alloc: AllocDir
    out: bytearray = field(default_factory=bytearray)
    err: bytearray = field(default_factory=bytearray)
    readers: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def id(self) -> str:
        """Nomad's id of the task."""
        return self.config.id

    @property
    def container(self) -> str:
        """The container's id, which differs between cgroup v1 and v2."""
        if Path("/sys/fs/cgroup/cgroup.controllers").exists():
            return f"{self.config.alloc_id}.{self.config.name}.scope"
        return f"{self.config.name}-{self.config.alloc_id}"

    def read_logs(self) -> None:
        """Starts to read both FIFOs, as logmon does."""
        for stream, into in (("stdout", self.out), ("stderr", self.err)):
            fifo = self.alloc.fifo(self.config.name, stream)
            self.readers.append(asyncio.create_task(_collect(fifo, into)))

    async def logs_end(self, timeout_s: float = 10) -> None:
        """Waits for the end of both logs."""
        _, late = await asyncio.wait(self.readers, timeout=slowed(timeout_s))
        assert not late, "the log FIFOs have no end"


async def _collect(fifo: Path, into: bytearray) -> None:
    reader = FifoReader(fifo)
    try:
        while data := await reader.read():
            into += data
    finally:
        reader.close()


class Driver:
    """Everything that a test starts. `session` is the agent's side of the plugin."""

    def __init__(
        self,
        containerd: ContainerdDaemon | FakeContainerd,
        directory: Path,
        config: Mapping[str, Any] | None = None,
        prefix: Sequence[str] | None = None,
    ) -> None:
        """Prepares a driver; the words of `prefix` stand before the plugin's program."""
        self.containerd = containerd
        self.state_dir = directory / "state"
        self.alloc_root = directory / "allocs"
        self.settings = DriverSettings(
            containerd_address=containerd.address, containerd_namespace=containerd.namespace
        )
        self.program = make_plugin_dir(directory / "plugins")
        self.session = AgentSession(
            [*(_root() if prefix is None else prefix), str(self.program)],
            {
                "containerd_address": containerd.address,
                "containerd_namespace": containerd.namespace,
                "state_dir": str(self.state_dir),
                **(config or {}),
            },
        )

    @property
    def daemon(self) -> ContainerdDaemon:
        """The real containerd of a driver with a real containerd."""
        assert isinstance(self.containerd, ContainerdDaemon)
        return self.containerd

    def task(
        self,
        name: str = "t",
        *,
        memory_mb: int = 64,
        resources: Resources | None = None,
        env: Mapping[str, str] | None = None,
        alloc_id: str = "",
        **fields: Unpack[TaskFields],
    ) -> Job:
        """Creates a task in an allocation of its own, without a start."""
        alloc_id = alloc_id or str(uuid.uuid4())
        alloc = AllocDir(self.alloc_root, alloc_id)
        alloc.build([name])
        config = TaskConfig(
            id=f"{alloc_id}/{name}/{next(_numbers):08x}",
            name=name,
            alloc_id=alloc_id,
            job_name="test",
            task_group_name="test",
            env={"NOMAD_ALLOC_ID": alloc_id, "NOMAD_TASK_NAME": name, **(env or {})},
            resources=resources
            or Resources(cpu_shares=100, memory_mb=memory_mb, memory_limit_bytes=memory_mb * MIB),
            alloc_dir=str(alloc.path),
            stdout_path=str(alloc.fifo(name, "stdout")),
            stderr_path=str(alloc.fifo(name, "stderr")),
            **fields,
        )
        return Job(config, alloc)

    async def start(self, job: Job, image: str, script: str = "", **options: Any) -> Handle:
        """Reads the task's logs and starts the task, with a shell script for its command."""
        job.read_logs()
        chosen = {"image": image, **options}
        if script:
            chosen |= {"command": "/bin/sh", "args": ["-c", script]}
        return await self.session.start(job.config, chosen)

    async def output(self, image: str, script: str, job: Job | None = None, **options: Any) -> str:
        """Runs a script in a task of its own, from start to destroy, and returns the output."""
        job = job or self.task()
        await self.start(job, image, script, **options)
        result = await self.session.wait(job.id)
        await self.end(job)
        assert result.exit_code == 0, (result, bytes(job.out), bytes(job.err))
        return job.out.decode()

    async def healthy(self) -> None:
        """Waits until the plugin reports a healthy containerd; gRPC reconnects within a second."""
        while (await self.session.fingerprint()).health is not Health.HEALTHY:
            await asyncio.sleep(0.05)

    async def end(self, job: Job) -> None:
        """Destroys the task and waits for the end of its logs."""
        await self.session.destroy(job.id)
        if job.readers:
            await job.logs_end()

    def close(self) -> None:
        """Ends the launcher and removes the objects of a failed test."""
        self.containerd.remove_all()
        for pid in worker_pids(self.state_dir):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        end_launcher(self.state_dir)

    def leftovers(self) -> list[str]:
        """Lists the remains of destroyed tasks in containerd, on disk and in the process table."""
        left = self.containerd.leftovers()
        for directory in (self.state_dir / "tasks", self.state_dir / "mounts"):
            left += [
                f"state {entry}" for entry in (directory.iterdir() if directory.exists() else ())
            ]
        left += [f"mount {line}" for line in _lines_with("/proc/mounts", str(self.alloc_root))]
        return left

    def wait_clean(self) -> None:
        """Waits until no remains are left.

        Containerd drops a start's lease a moment after the answer. A worker ends a moment after its
        own answer.
        """
        wait_until(lambda: not self._left(), 10, lambda: str(self._left()))

    def _left(self) -> list[str]:
        workers = children(launcher_pid(self.state_dir))
        return self.leftovers() + [f"worker {pid}" for pid in workers]


def _root() -> list[str]:
    """Returns the command prefix for a user's root in a new mount namespace."""
    return [] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount", "--"]


def children(pid: int | None) -> list[str]:
    """Lists the pids of a process's children, whichever thread started them."""
    found: list[str] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += thread.read_text().split()
    return found


def _lines_with(path: str, text: str) -> list[str]:
    return [line for line in Path(path).read_text().splitlines() if text in line]


@contextlib.asynccontextmanager
async def launched(driver: Driver) -> AsyncIterator[AgentSession]:
    """Launches the plugin for a `with` block and closes the plugin at its end."""
    await driver.session.launch()
    try:
        yield driver.session
    finally:
        await driver.session.close()
