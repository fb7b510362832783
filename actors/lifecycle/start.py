"""How a task starts: steps in order, each with its undo.

    image ready     ┐   ┌ worker forked, log keepers open ┐
    lease           ┼ → ┼ sources of mounts held          ┼ → task created
    state directory ┘   └ snapshot prepared → container   ┘
        → the worker's Wait stands at the shim, mounts checked → task started → all let go

containerd opens Nomad's log FIFOs itself; its Create hangs while nobody reads them, so the keepers
come first, and it is given what they hold: at Nomad's path a task may have put a link by then. The
Wait comes before Start, so that no exit is missed, however short the task. Lease and held sources
are let go after the answer: to unmount beside the runtime makes both slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar

from actors.asyncio_bridge import Reply, tell
from actors.blocking import file_servers
from actors.events import Publish
from actors.files import private_files
from actors.handles.handle import VERSION, HandleState
from actors.images.messages import EnsureImage, ImageReady, ImageRequest, LeaveImage, TaskIdentity
from actors.lifecycle import mount_targets, plan, preparation, teardown
from actors.lifecycle.cgroup import give_back_cgroup, join_cpuset
from actors.lifecycle.directory import fresh
from actors.lifecycle.retry import Patience
from actors.lifecycle.running import RunningTask, Services
from actors.model import identifiers
from actors.model.nomad import StartedTask, TaskConfig, TaskEvent
from actors.model.ownership import LABEL_OWNER
from actors.processes import worker_link
from actors.provision import host_resources, lost_network, mount_check, mount_sources, oom_score
from containerd.api import deadlines
from containerd.api.records import ContainerRecord, Streams
from containerd.spec import root_links
from containerd.spec.build import Document, build_and_encode
from containerd.spec.users import ResolvedUser, remembered, resolve
from proto.errors import Code, DriverError
from workers import protocol

if TYPE_CHECKING:
    from actors.model.settings import TaskOptions
    from actors.processes.worker_link import WorkerLink
    from actors.provision.log_ends import LogEnds
    from containerd.api.records import Mount

T = TypeVar("T")
# Long enough for a slow start, short enough that what a killed plugin left is collected.
_LEASE_S = 3600.0
# All steps together; after them each has a moment more.
_UNDO_S, _UNDO_SILENT_S = 60.0, 5.0
_TELL_AFTER_S = 10.0
_FEW_MOUNTS = 64
_AGAIN_AFTER_S = (0.0, 0.2, 1.0)
# By container: names of leases and held sources are the next start's too.
_letting_go: dict[str, asyncio.Task[None]] = {}
_log = logging.getLogger(__name__)


async def start(
    services: Services, task: TaskConfig, options: TaskOptions, logs: LogEnds
) -> tuple[RunningTask, StartedTask]:
    """Starts a task; returns when its process runs. Releases the ends of its logs.

    Raises:
        DriverError: the step that failed; every step before it is undone.
    """
    with contextlib.closing(logs):
        return await _start(services, task, options, logs)


async def settle(timeout_s: float) -> None:
    """Waits until the starts that were answered have let go of their leases and held sources."""
    if _letting_go:
        await asyncio.wait([*_letting_go.values()], timeout=timeout_s)


async def _start(
    services: Services, task: TaskConfig, options: TaskOptions, logs: LogEnds
) -> tuple[RunningTask, StartedTask]:
    def say(note: str) -> None:
        tell(services.events, Publish(event=TaskEvent.now(task, note)))

    prepared = made, parts = await preparation.prepare(services, task, options, say)
    for note in parts.notes:
        say(note)
    if (before := _letting_go.get(made.container_id)) is not None:
        await asyncio.wait([before])
    async with _image(services, task, made.image) as image:
        for pause_s in (*_AGAIN_AFTER_S, None):
            try:
                return await _Start(services, task, options, prepared, image, logs).run()
            except DriverError as error:
                if error.code is not Code.ALREADY_EXISTS:
                    raise
                if pause_s is None:
                    error.recoverable = True
                    raise
            # An earlier start of this very task was cut short: a clean-up, and once more, as
            # containerd may still be at work for it.
            _log.warning(
                "leftovers of an earlier start are removed", extra={"id": made.container_id}
            )
            await teardown.remove(services, made.container_id, link=None)
            await asyncio.sleep(pause_s)
    raise AssertionError  # the last try returns or raises


@contextlib.asynccontextmanager
async def _image(
    services: Services, task: TaskConfig, request: ImageRequest
) -> AsyncGenerator[asyncio.Future[ImageReady], None]:
    """The image to come, not collected until its container exists or the start has failed."""
    reply: Reply[ImageReady] = Reply()
    identity = TaskIdentity(task_id=task.id, alloc_id=task.alloc_id, task_name=task.name)
    tell(services.images, EnsureImage(request=request, task=identity, reply=reply))
    try:
        yield reply.future
    finally:
        tell(services.images, LeaveImage(reply=reply))


class _Start:
    """One try. Its attributes are what the steps hand to each other."""

    def __init__(
        self,
        services: Services,
        task: TaskConfig,
        options: TaskOptions,
        prepared: tuple[plan.Plan, host_resources.HostParts],
        image: asyncio.Future[ImageReady],
        logs: LogEnds,
    ) -> None:
        self._services = services
        self._containerd = services.containerd
        self._task = task
        self._options = options
        self._plan, self._parts = prepared
        self._coming = image
        self._logs = logs
        self._id = self._plan.container_id
        self._lease = identifiers.lease_id(self._id)
        self._undo = AsyncExitStack()
        self._left: list[str] = []
        self._patience = Patience(0.0)

    async def run(self) -> tuple[RunningTask, StartedTask]:
        try:
            link, pid, started_at_ns = await self._steps()
        except BaseException as error:
            await _to_its_end(self._undo_all(error))
            if self._left and isinstance(error, DriverError):
                raise teardown.with_rest(error, self._id, self._left) from error
            raise
        last = asyncio.get_running_loop().create_task(self._let_go())
        _letting_go[self._id] = last
        last.add_done_callback(lambda _: _letting_go.pop(self._id, None))
        state = self._state(pid, started_at_ns)
        network = self._parts.network
        return (
            RunningTask(
                services=self._services,
                state=state,
                directory=self._plan.directory,
                link=link,
                network=network,
            ),
            StartedTask(handle_version=VERSION, driver_state=state.encode(), network=network),
        )

    async def _steps(self) -> tuple[WorkerLink, int, int]:
        self._later("cgroup", self._give_back_cgroup)
        # Shielded: a second try wants the image too.
        self._image, _, _ = await _all(
            asyncio.shield(self._coming), self._open_lease(), self._open_directory()
        )
        link, (mounts, document), _ = await _all(self._fork(), self._container(), self._hold())
        with self._telling("containerd still makes the container"):
            pid = await self._create(mounts, link)
            await _all(self._watch(link, pid), self._check_created(pid, document))
            # Taken before: a short task has ended when containerd answers.
            started_at_ns = time.time_ns()
            return link, await self._containerd.tasks.start(self._id), started_at_ns

    async def _give_back_cgroup(self) -> None:
        await give_back_cgroup(self._task.resources, cgroup_v2=self._services.cgroup_v2)

    @contextlib.contextmanager
    def _telling(self, what: str) -> Generator[None, None, None]:
        """Nobody who waits is left without a word."""
        text = f"{what} after {_TELL_AFTER_S:g} s, on runtime {self._plan.runtime.name}"

        def say() -> None:
            tell(self._services.events, Publish(event=TaskEvent.now(self._task, text)))

        telling = asyncio.get_running_loop().call_later(_TELL_AFTER_S, say)
        try:
            yield
        finally:
            telling.cancel()

    async def _undo_all(self, cause: BaseException) -> None:
        """In a time that is short where containerd has just kept silent: it does the undo, too."""
        if isinstance(cause, DriverError) and cause.code is Code.ALREADY_EXISTS:
            # A worker or a shim of an earlier start writes to the logs, and both end now.
            await asyncio.to_thread(self._logs.hold)
        silent = cause.code is Code.TIMEOUT if isinstance(cause, DriverError) else True
        short = silent and not await self._containerd.answers()
        with deadlines.within(_UNDO_SILENT_S if short else _UNDO_S):
            await self._undo.aclose()

    def _later(self, what: str, undo: Callable[..., Awaitable[object]], *arguments: object) -> None:
        """Registers an undo step; its own failure is logged and hides nothing."""

        async def step() -> None:
            try:
                await self._patience(lambda: undo(*arguments))
            except (DriverError, OSError) as error:
                self._left.append(what)
                _log.warning(
                    "undo of a start failed",
                    extra={"id": self._id, "step": what, "why": str(error)},
                )

        self._undo.push_async_callback(step)

    async def _make(
        self,
        making: Awaitable[T],
        what: str,
        undo: Callable[..., Awaitable[object]],
        *arguments: object,
    ) -> T:
        """Has something made, and undone later whatever comes of it: an answer may get lost.

        What was there before is an earlier start's, and removed in another order.
        """
        theirs = False
        try:
            return await making
        except DriverError as error:
            theirs = error.code is Code.ALREADY_EXISTS
            raise
        finally:
            if not theirs:
                self._later(what, undo, *arguments)

    async def _open_lease(self) -> None:
        self._later("lease", self._containerd.leases.delete, self._lease)
        await self._containerd.leases.create(
            self._lease, expire_s=_LEASE_S, labels=self._plan.labels
        )
        # Before, containerd has made nothing but perhaps a lease, which expires.
        self._patience = Patience()

    async def _open_directory(self) -> None:
        """First of all: what else is found of this start, its note says whose it is."""
        directory = self._plan.directory
        self._later("state directory", teardown.remove_directory, directory)
        await asyncio.to_thread(
            fresh,
            self._services,
            directory,
            self._plan.labels[LABEL_OWNER],
        )

    async def _fork(self) -> WorkerLink:
        link = await self._services.launcher.fork(
            protocol.WorkerSpec(
                name=self._id,
                dir=str(self._plan.directory),
                stdout=self._task.stdout_path,
                stderr=self._task.stderr_path,
                log_buffer_bytes=self._services.settings.log_buffer_bytes,
                log_drops=self._services.settings.log_drops,
                holds_logs=True,
            )
        )
        self._later("worker", teardown.end_worker, link)
        return link

    async def _snapshot(self) -> tuple[Mount, ...]:
        key = identifiers.snapshot_key(self._id)
        snapshotter = self._plan.image.snapshotter
        making = self._containerd.snapshots.prepare(
            snapshotter, key, self._image.chain_id, self._plan.labels, self._lease
        )
        undo = self._containerd.snapshots.remove
        return await self._make(making, "snapshot", undo, snapshotter, key)

    async def _hold(self) -> None:
        """Holds the sources of the task's mounts until the runtime has made them."""
        parts, task = self._parts, self._task

        before = ""

        def hold() -> None:
            nonlocal before
            before = private_files.read(task.alloc_dir, task.name, lost_network.FILE)
            private_files.write(task.alloc_dir, task.name, parts.files)
            mount_sources.pin(parts.pins, parts.pinned)

        def remove() -> None:
            if not before:  # else the next start has to know what the last one had
                private_files.remove(task.alloc_dir, task.name)

        def allocation() -> str:
            return f"the allocation {task.alloc_dir}"

        self._holding = asyncio.ensure_future(asyncio.to_thread(hold))
        self._later("name files", file_servers.in_time, remove, allocation)
        self._later("held sources", self._release)
        await file_servers.until(self._holding, allocation)

    async def _release(self) -> None:
        # A cancelled start does not stop the thread that holds them.
        await asyncio.wait([self._holding], timeout=file_servers.LATE_S)
        pins, loop = self._parts.pins, asyncio.get_running_loop()
        if self._holding.done():
            await asyncio.to_thread(mount_sources.release, pins)
        else:  # it waits for a file server, and holds them when that answers
            self._holding.add_done_callback(
                lambda _: loop.run_in_executor(None, mount_sources.release, pins)
            )

    async def _container(self) -> tuple[tuple[Mount, ...], Document]:
        """Makes snapshot and container; of an image that is known the spec is built meanwhile."""
        snapshot = asyncio.ensure_future(self._snapshot())
        mounts, (document, spec_json) = await _all(snapshot, self._described(snapshot))
        making = self._containerd.containers.create(
            ContainerRecord(
                id=self._id,
                labels=self._plan.labels,
                image=self._image.name,
                runtime=self._plan.runtime.name,
                runtime_binary=self._plan.runtime.binary_name,
                spec_json=spec_json,
                snapshotter=self._plan.image.snapshotter,
                snapshot_key=identifiers.snapshot_key(self._id),
            ),
            self._lease,
        )
        undo = self._containerd.containers.delete
        await self._make(making, "container", undo, self._id)
        return mounts, document

    async def _described(
        self, snapshot: asyncio.Future[tuple[Mount, ...]]
    ) -> tuple[Document, bytes]:
        """The spec and its JSON; waits for the snapshot only where the image must be looked at."""
        wanted = self._task.user or self._image.config.user
        groups, key = self._options.group_add, self._image.chain_id
        user = remembered(wanted, cache_key=key, more_groups=groups)
        if user is None:
            user = await resolve(wanted, await snapshot, cache_key=key, more_groups=groups)
        for note in plan.notes_on_user(self._options, user):
            tell(self._services.events, Publish(event=TaskEvent.now(self._task, note)))
        try:
            return await file_servers.looked_at(lambda: self._document(user, None))
        except root_links.NotRemembered:
            mounts = await snapshot
            return await file_servers.looked_at(lambda: self._document(user, mounts))

    def _document(
        self, user: ResolvedUser, mounts: tuple[Mount, ...] | None
    ) -> tuple[Document, bytes]:
        """The spec of the container; in a thread, for it looks at the image, and a job sizes it."""
        parts = mount_targets.place(
            self._plan, self._options, self._parts, mounts, self._image.chain_id
        )
        mount_targets.make(self._plan, parts)
        return build_and_encode(
            plan.spec_inputs(
                self._services, self._task, self._options, self._plan, self._image, user, parts
            )
        )

    async def _create(self, mounts: tuple[Mount, ...], link: WorkerLink) -> int:
        self._later("task", teardown.delete_task, self._containerd, self._id)
        creating = self._containerd.tasks.create(
            self._id,
            mounts,
            Streams(
                stdout=link.log_path(self._plan.stdout), stderr=link.log_path(self._plan.stderr)
            ),
        )
        try:
            pid = await self._answered(creating)
        except DriverError as error:
            # Without its worker the shim has no log FIFO to open, and that is what it tells.
            await _ask_whether_alive(link, error)
            raise
        self._logs.close()  # the shim has opened them
        if self._task.resources.cpuset_cgroup:
            await asyncio.to_thread(
                join_cpuset,
                self._task.resources,
                pid,
                cgroup_v2=self._services.cgroup_v2,
            )
        return pid

    async def _answered(self, creating: Awaitable[int]) -> int:
        """The answer of Create, unless a file server does not answer that the runtime waits for."""
        running = asyncio.ensure_future(creating)
        try:
            await asyncio.wait([running], timeout=_TELL_AFTER_S)
            if not running.done():
                await preparation.ask_servers(self._parts)
            return await running
        finally:
            running.cancel()

    async def _check_created(self, pid: int, document: Document) -> None:
        """The last look before the program starts: what the runtime has made of the spec."""

        def check() -> None:
            oom_score.give(pid, self._id, self._options.oom_score_adj)
            if self._plan.runtime.shows_mounts:
                mount_check.check(pid, document)

        if len(document["mounts"]) <= _FEW_MOUNTS:
            check()  # in less time than a thread takes to begin
        else:
            await asyncio.to_thread(check)

    async def _watch(self, link: WorkerLink, pid: int) -> None:
        shim = await self._containerd.shim(self._id, pid)
        if shim is None:
            raise DriverError(
                f"the shim of container {self._id} has no address that a worker can use",
                details=f"runtime {self._plan.runtime.name}",
                resolution="use io.containerd.runc.v2",
                code=Code.UNSUPPORTED,
            )
        await link.request(
            "watch",
            address=shim.address,
            api=shim.api,
            namespace=self._services.namespace,
            container_id=self._id,
        )

    async def _let_go(self) -> None:
        """The container refers to the snapshot now; without the lease nothing is lost."""
        await self._release()
        try:
            await self._containerd.leases.delete(self._lease)
        except DriverError as error:
            _log.info(
                "lease stays until it expires", extra={"lease": self._lease, "why": str(error)}
            )

    def _state(self, pid: int, started_at_ns: int) -> HandleState:
        return HandleState(
            container_id=self._id,
            containerd_namespace=self._services.namespace,
            snapshotter=self._plan.image.snapshotter,
            boot_id=self._services.boot_id,
            started_at_ns=started_at_ns,
            pid=pid,
            stdout_path=self._task.stdout_path,
            stderr_path=self._task.stderr_path,
            stop_signal=self._options.stop_signal or self._image.config.stop_signal,
            image=self._image.name,
        )


async def _ask_whether_alive(link: WorkerLink, failure: DriverError) -> None:
    """Raises a failure of its own, that a new start may not meet, where the worker has died."""
    try:
        await link.request("hello")
    except DriverError as lost:
        raise DriverError(
            "the task's worker went away in the middle of the start",
            details=str(failure),
            resolution=f"start the task again. {worker_link.WHERE_THAT_REPEATS}",
            recoverable=True,
            code=Code.UNAVAILABLE,
        ) from lost


async def _all(*steps: Awaitable[Any]) -> list[Any]:
    """Runs steps together; each ends before the first failure is raised, so undo has peace."""
    outcomes = await asyncio.gather(*steps, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return outcomes


async def _to_its_end(undo: Coroutine[Any, Any, None]) -> None:
    """Undoes all, whoever cancels the start meanwhile: its steps must not overtake each other.

    A task whose container is removed before it is one that containerd never finds again.
    """
    undoing = asyncio.ensure_future(undo)
    while not undoing.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([undoing])
    undoing.result()
