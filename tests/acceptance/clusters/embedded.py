"""The embedded host: plan of a job, session with the plugin, and supervision of both."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from actors.model.nomad import ExecInput, ExecOutput, ExitResult, TaskUsage
from plugin.host.agent.log_reader import LogReader
from plugin.host.agent.plugin_program import default_program
from plugin.host.agent.session import Handle
from plugin.host.job import jobfile
from plugin.host.network.ports import HostPorts
from plugin.host.run import alloc_plan
from plugin.host.run.alloc_plan import PlannedTask
from plugin.host.run.machine import HostVolume
from proto.errors import DriverError
from tests.acceptance.clusters.cluster import (
    PATIENCE_S,
    VOLUME,
    Cluster,
    Done,
    End,
    Sample,
    Task,
    Terminal,
    example,
)
from tests.support.plugin.agent_session import AgentSession
from tests.support.waiting import slowed, wait_until
from tests.support.workers.launcher import end_launcher
from tests.support.workers.peers import has_ended

T = TypeVar("T")


class Loop:
    """An event loop in a thread, for tests that are no coroutines."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T], timeout_s: float = 90) -> T:
        """Returns the result of a coroutine."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(slowed(timeout_s))

    def close(self) -> None:
        """Ends the thread."""
        self.call(_cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(slowed(10))
        self._loop.close()


async def _cancel_all() -> None:
    await _cancelled([task for task in asyncio.all_tasks() if task is not asyncio.current_task()])


async def _cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def planned(job: str, variables: Mapping[str, str], base: Path) -> PlannedTask:
    """Plans the first task of a job with the embedded host, and makes the task's directories."""
    read = jobfile.load(example(job), variables)
    volumes = {"s1": HostVolume(path=str(base / VOLUME))}
    alloc = alloc_plan.allocations(read, base / "allocs", HostPorts("127.0.0.1"), volumes)[0]
    assert not alloc.netns, "a network of the group's own is not made here"
    alloc_plan.build(alloc)
    return alloc.tasks[0]


class EmbeddedCluster(Cluster):
    """A session for all tests. config is the plugin block's."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self._config = {**config, **self.own_config()}
        self._more: dict[str, Any] = {}
        self.loop = Loop()
        self.tasks: list[EmbeddedTask] = []
        self._events: asyncio.Task[None] | None = None
        self._launch()

    def _launch(self) -> None:
        self.session = AgentSession(default_program(), {**self._config, **self._more})
        self.loop.call(self.session.launch())
        self.loop.call(self._listen())

    async def _listen(self) -> None:
        self._events = asyncio.create_task(self._hear())

    async def _hear(self) -> None:
        while True:
            with contextlib.suppress(DriverError):
                async for event in self.session.events():
                    for task in self.tasks:
                        if task.planned.config.id == event.task_id:
                            task.told.append(event.message)
            await asyncio.sleep(0.05)

    def start(self, job: str, **variables: str) -> Task:
        """See `Cluster`."""
        task = EmbeddedTask(self, planned(job, variables, self.base))
        self.tasks.append(task)
        self.loop.call(task.begin())
        return task

    def crash(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """See `Cluster.crash`. The host is this process: only the plugin dies."""
        self.loop.call(_cancelled([task.wait for task in self.tasks if task.wait is not None]))
        pid = self.session.pid
        self.session.kill_plugin()
        wait_until(lambda: has_ended(pid), PATIENCE_S, "the plugin lives on")
        meanwhile()
        self.loop.call(self.session.launch())
        for task in self.tasks:
            self.loop.call(task.recover())

    def restart(self, **config: Any) -> None:
        """See `Cluster`."""
        self.clean()
        self.loop.call(self._end_session())
        self._more = config
        self._launch()

    def clean(self) -> None:
        """See `Cluster`."""
        for task in list(self.tasks):
            task.purge()

    def close(self) -> None:
        """See `Cluster`."""
        self.clean()
        self.loop.call(self._end_session())
        self.loop.close()
        end_launcher(self.base / "state")
        self.remove_base()

    async def _end_session(self) -> None:
        if self._events is not None:
            self._events.cancel()
            await asyncio.gather(self._events, return_exceptions=True)
        await self.session.close()


class EmbeddedTask(Task):
    """A task of the embedded host. `told` are the task's events and failures."""

    def __init__(self, cluster: EmbeddedCluster, planned: PlannedTask) -> None:
        super().__init__(planned.task.name, planned.config.alloc_id)
        self.planned = planned
        self.told: list[str] = []
        self._cluster = cluster
        self._id = planned.config.id
        self._state = "pending"
        self._handle: Handle | None = None
        self._result: ExitResult | None = None
        self._logs = {"stdout": bytearray(), "stderr": bytearray()}
        self._readers: list[LogReader] = []
        self._helpers: list[asyncio.Task[None]] = []
        self.wait: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Opens the logs, starts the task and waits in the background for the end."""
        for stream, into in self._logs.items():
            reader = LogReader(self.planned.alloc.fifo(self.name, stream))
            self._readers.append(reader)
            self._helpers.append(asyncio.create_task(_collect(reader, into)))
        try:
            self._handle = await self._cluster.session.start(
                self.planned.config, self.planned.options
            )
        except DriverError as error:
            self.told.append(str(error))
            self._state = "dead"
            return
        self._state = "running"
        self.wait = asyncio.create_task(self._wait())

    async def recover(self) -> None:
        """Recovers the task in a new plugin with RecoverTask."""
        if self._handle is not None and self._result is None:
            await self._cluster.session.recover(self._handle)
            self.wait = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        self._result = await self._cluster.session.wait(self._id)
        for reader in self._readers:
            reader.finish()
        self._state = "dead"

    @property
    def state(self) -> str:
        """See `Task`."""
        return self._state

    @property
    def alloc_dir(self) -> Path:
        """See `Task`."""
        return self.planned.alloc.path

    def story(self) -> str:
        """See `Task`."""
        return "\n".join(self.told)

    def log(self, stream: str = "stdout") -> str:
        """See `Task`."""
        return self._logs[stream].decode(errors="replace")

    def exec(self, *argv: str, stdin: str = "") -> Done:
        """See `Task`."""
        run = EmbeddedTerminal(self._cluster, self._id, argv, tty=False)
        run.type(stdin)
        run.close_input()
        try:
            code, why = run.exit_code(), ""
        except DriverError as error:
            code, why = 1, str(error)
        return Done(code=code, out=run.output(), err=run.errors.decode() + why)

    def script(self, *argv: str) -> Done:
        """See `Task`."""
        answer = self._cluster.loop.call(self._cluster.session.exec(self._id, argv))
        return Done(
            code=answer.exit.exit_code, out=answer.stdout.decode(), err=answer.stderr.decode()
        )

    def terminal(self, *argv: str, rows: int, columns: int) -> Terminal:
        """See `Task`."""
        run = EmbeddedTerminal(self._cluster, self._id, argv, tty=True)
        run.resize(rows, columns)
        return run

    def signal(self, name: str) -> str:
        """See `Task`."""
        try:
            self._cluster.loop.call(self._cluster.session.signal(self._id, name))
        except DriverError as error:
            return str(error)
        return ""

    def stop(self) -> None:
        """See `Task`."""
        task = self.planned.task
        self._cluster.loop.call(
            self._cluster.session.stop(self._id, task.kill_timeout_s, task.kill_signal)
        )
        self.end()

    def end(self, timeout_s: float = PATIENCE_S) -> End:
        """See `Task`."""
        result = wait_until(lambda: self._result, timeout_s, self.story)
        assert result is not None
        assert result.error == ""
        return End(exit_code=result.exit_code, oom_killed=result.oom_killed)

    def samples(self, count: int) -> list[Sample]:
        """See `Task`."""

        async def collect() -> list[Sample]:
            found: list[Sample] = []
            async with contextlib.aclosing(self._cluster.session.stats(self._id, 1.0)) as stream:
                async for usage in stream:
                    found.append(_sample(usage))
                    if len(found) == count:
                        break
            return found

        return self._cluster.loop.call(collect())

    def purge(self) -> None:
        """See `Task`."""
        if self in self._cluster.tasks:
            self._cluster.tasks.remove(self)
            self._cluster.loop.call(self._destroy())
            assert self.planned.alloc.remove() == ""

    async def _destroy(self) -> None:
        await self._cluster.session.destroy(self._id, force=True)
        self._state = "dead"
        for helper in self._helpers if self._handle is None else ():
            helper.cancel()  # without a writer, a FIFO never ends
        ends = [*self._helpers, *([self.wait] if self.wait is not None else [])]
        _, late = await asyncio.wait(ends, timeout=slowed(PATIENCE_S))
        for reader in self._readers:
            reader.close()
        assert not late, f"no end of {late}"


async def _collect(reader: LogReader, into: bytearray) -> None:
    async for data in reader.chunks():
        into += data


def _sample(usage: TaskUsage) -> Sample:
    memory, cpu = usage.memory, usage.cpu
    return Sample(
        at_ns=usage.timestamp_ns,
        rss=memory.rss or 0,
        usage=memory.usage or 0,
        cache=memory.cache or 0,
        swap=memory.swap or 0,
        percent=cpu.percent,
        user_percent=cpu.user_percent,
        system_percent=cpu.system_percent,
        total_ticks=cpu.total_ticks,
    )


class EmbeddedTerminal(Terminal):
    """An exec stream, with a terminal or without."""

    def __init__(
        self, cluster: EmbeddedCluster, task_id: str, argv: tuple[str, ...], *, tty: bool
    ) -> None:
        self.errors = bytearray()
        self._loop = cluster.loop
        self._inputs: asyncio.Queue[ExecInput] = asyncio.Queue()
        self._out = bytearray()
        stream = cluster.session.exec_streaming(task_id, argv, self._requests(), tty=tty)
        self._end = self._loop.call(_begun(self._read(stream)))

    async def _requests(self) -> AsyncGenerator[ExecInput, None]:
        while True:
            yield await self._inputs.get()

    async def _read(self, stream: AsyncGenerator[ExecOutput, None]) -> int:
        async with contextlib.aclosing(stream):
            async for message in stream:
                self._out += message.stdout
                self.errors += message.stderr
                if message.exit is not None:
                    return message.exit.exit_code
        raise AssertionError("the exec stream ended without an exit code")

    def _send(self, item: ExecInput) -> None:
        self._loop.call(self._inputs.put(item))

    def type(self, text: str) -> None:
        """See `Terminal`."""
        self._send(ExecInput(stdin=text.encode()))

    def close_input(self) -> None:
        """Ends stdin."""
        self._send(ExecInput(stdin_close=True))

    def resize(self, rows: int, columns: int) -> None:
        """See `Terminal`."""
        self._send(ExecInput(resize=(rows, columns)))

    def output(self) -> str:
        """See `Terminal`."""
        return self._out.decode(errors="replace")

    def exit_code(self) -> int:
        """See `Terminal`."""
        return self._loop.call(_ended(self._end))


async def _begun(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    return asyncio.create_task(work)


async def _ended(task: asyncio.Task[T]) -> T:
    return await task
