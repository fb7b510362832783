"""One attempt to start a task: the steps in their order, each with its undo.

                                      ┌ worker forked, log FIFOs open ┐
    image ready → ┬ state directory ──┴ sources of mounts pinned      ┼ → task created
                  └ snapshot prepared, spec → container created       ┘
        → the worker waits at the shim, mounts checked → task started → pins released

containerd opens Nomad's log FIFOs itself, and its Create hangs while no process reads them. So the
worker opens the FIFOs first. containerd gets the paths of the worker's descriptors: a task could
have replaced a FIFO at Nomad's path by a link meanwhile.

The worker waits at the shim before the task starts, so the exit of a short task is not missed.

No lease protects the snapshot until the container refers to the snapshot: a lease costs two synced
writes of containerd. The snapshot is born with the label `containerd.io/gc.root` instead. So
containerd never collects the snapshot, and the removal of the task, or a sweep, removes it.

The pins are released after the answer to Nomad: an unmount beside the runtime makes both slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Generator
from typing import TYPE_CHECKING

from actors.asyncio_bridge import all_ended, tell
from actors.blocking import file_servers
from actors.checks import health_check
from actors.events import Publish
from actors.handles.handle import VERSION, HandleState
from actors.lifecycle import mount_targets, plan, preparation, teardown
from actors.lifecycle.cgroup import join_cpuset, limit_disk, restore_cgroup
from actors.lifecycle.directory import create_directory
from actors.lifecycle.running import RunningTask, Services, watch, worker_spec
from actors.lifecycle.undo import Undo, to_its_end
from actors.model import identifiers
from actors.model.nomad import StartedTask, TaskEvent
from actors.model.shim_groups import ALLOC
from actors.processes import worker_link
from actors.provision import mount_check, oom_score
from actors.provision.pinned_sources import PinnedSources
from containerd.api.records import ContainerRecord
from containerd.api.snapshots import GC_ROOT
from containerd.documents import Document
from containerd.security import selinux
from containerd.spec import root_links
from containerd.spec.build import build_and_encode, with_shim_group
from containerd.spec.users import ResolvedUser, remembered, resolve
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from actors.images.messages import ImageReady
    from actors.lifecycle.plan import Preparation
    from actors.model.shim_groups import Member
    from actors.processes.worker_link import WorkerLink
    from actors.provision.log_ends import LogEnds
    from actors.step_log import StepLog
    from containerd.api.records import Mount

_REPORT_AFTER_S = 10.0
_FEW_MOUNTS = 64


class Attempt:
    """One attempt to start a task. The attributes carry results from step to step.

    Args:
        services: the plugin's services.
        prepared: the checked start.
        image: resolves to the image; a second attempt uses the same future.
        logs: the plugin's own ends of the log FIFOs.
        log: gets one line for each step.
    """

    def __init__(
        self,
        services: Services,
        prepared: Preparation,
        image: asyncio.Future[ImageReady],
        logs: LogEnds,
        log: StepLog,
    ) -> None:
        self._services = services
        self._containerd = services.containerd
        self._prepared = prepared
        self._task = prepared.task
        self._options = prepared.options
        self._plan = prepared.plan
        self._parts = prepared.parts
        self._coming_image = image
        self._logs = logs
        self._log = log
        self._id = self._plan.container_id
        self._pinned = PinnedSources(
            prepared.task, prepared.parts, self._plan.contexts, prepared.shared
        )
        self._undo = Undo(self._containerd, log)
        self._member: Member | None = None
        self._labels = dict(self._plan.labels)

    async def run(self) -> tuple[RunningTask, StartedTask]:
        """Runs all steps, or undoes the steps that were done.

        Raises:
            DriverError: the failure of a step. Code ALREADY_EXISTS; objects of an earlier start
                are in the way. The details name objects that could not be removed.
        """
        try:
            link, pid, started_at_ns = await self._steps()
        except BaseException as error:
            await to_its_end(self._undo_all(error))
            if self._undo.left and isinstance(error, DriverError):
                raise teardown.with_rest(error, self._id, self._undo.left) from error
            raise
        self._services.releases.begin(self._id, self._release)
        state = self._state(pid, started_at_ns)
        network = self._parts.network
        return (
            RunningTask(
                services=self._services,
                state=state,
                task_id=self._task.id,
                alloc_id=self._task.alloc_id,
                directory=self._plan.directory,
                link=link,
                network=network,
                nomad_namespace=self._task.namespace,
            ),
            StartedTask(handle_version=VERSION, driver_state=state.encode(), network=network),
        )

    async def _steps(self) -> tuple[WorkerLink, int, int]:
        v2 = self._services.cgroup_v2
        self._undo.later("cgroup", lambda: restore_cgroup(self._task.resources, cgroup_v2=v2))
        self._image = await self._wait_for_image()
        # From here on the start creates objects that only this plugin's undo removes at once.
        self._undo.wait_for_containerd()
        async with self._services.admission.turn(self._log, self._publish):
            return await self._use_runtime()

    async def _use_runtime(self) -> tuple[WorkerLink, int, int]:
        async with contextlib.AsyncExitStack() as group:
            directory = asyncio.ensure_future(self._create_directory())
            (mounts, document), link, _ = await all_ended(
                self._create_container(group),
                self._fork(directory),
                self._pin_sources(directory),
            )
            with self._reporting("containerd has not yet created the container"):
                pid = await self._create_task(mounts, link)
            if self._member is not None:
                self._member.pid = pid
        with self._reporting("containerd has not yet started the container"):
            await self._prepare_health_check(link, document)
            await all_ended(self._watch(link, pid), self._check_created(pid, document))
            # Read before the call: a short task has ended when containerd answers.
            started_at_ns = time.time_ns()
            pid = await self._containerd.tasks.start(self._id)
            self._log("task started")
            return link, pid, started_at_ns

    async def _undo_all(self, cause: BaseException) -> None:
        if isinstance(cause, DriverError) and cause.code is Code.ALREADY_EXISTS:
            # A worker or a shim of the earlier start writes to the logs, and both end now.
            await asyncio.to_thread(self._logs.hold)
        await self._undo.run(cause)

    @contextlib.contextmanager
    def _reporting(self, problem: str) -> Generator[None, None, None]:
        """Reports the problem as an event of the task when the block takes long."""
        text = f"{problem} after {_REPORT_AFTER_S:g} s, on runtime {self._plan.runtime.name}"
        timer = asyncio.get_running_loop().call_later(_REPORT_AFTER_S, self._publish, text)
        try:
            yield
        finally:
            timer.cancel()

    def _publish(self, text: str) -> None:
        tell(self._services.events, Publish(event=TaskEvent.now(self._task, text)))

    async def _wait_for_image(self) -> ImageReady:
        # Shielded: a second attempt needs the image too.
        image = await asyncio.shield(self._coming_image)
        self._log("image ready")
        return image

    async def _create_directory(self) -> None:
        """Creates the state directory, whose note names the owner of worker and pins.

        The objects in containerd name their owner themselves.
        """
        directory = self._plan.directory
        self._undo.later("state directory", teardown.remove_directory, directory)
        stdin = self._options.interactive
        owner = self._plan.owner
        await asyncio.to_thread(create_directory, self._services, directory, owner, stdin=stdin)
        self._log("state directory created")

    async def _fork(self, directory: asyncio.Future[None]) -> WorkerLink:
        await directory
        spec = worker_spec(
            self._services,
            self._id,
            self._plan.directory,
            self._plan.log,
            (self._task.stdout_path, self._task.stderr_path),
            holds_logs=not self._plan.log.type,  # for Nomad's logmon
        )
        forking = asyncio.ensure_future(self._services.launcher.fork(spec))
        self._undo.later("worker", teardown.end_forked, forking)
        link = await asyncio.shield(forking)  # so that a cancelled start can end the worker
        self._log("worker forked")
        return link

    async def _prepare_snapshot(self) -> tuple[Mount, ...]:
        key = identifiers.snapshot_key(self._id)
        snapshotter = self._plan.image.snapshotter
        preparing = self._containerd.snapshots.prepare(
            snapshotter, key, self._image.chain_id, {**self._plan.labels, GC_ROOT: "true"}
        )
        remove = self._containerd.snapshots.remove
        mounts = await self._undo.create(preparing, "snapshot", remove, snapshotter, key)
        self._log("snapshot prepared")
        self._labels |= await limit_disk(mounts, self._options.storage_bytes, self._undo)
        return mounts

    async def _pin_sources(self, directory: asyncio.Future[None]) -> None:
        """Pins the sources of the task's mounts until the runtime has mounted them."""
        await directory
        self._pinned.begin()
        self._undo.later("network files", self._pinned.remove_files)
        self._undo.later("pinned sources", self._pinned.release)
        await self._pinned.finished()
        self._log("mount sources pinned")

    async def _create_container(
        self, group: contextlib.AsyncExitStack
    ) -> tuple[tuple[Mount, ...], Document]:
        """Prepares the snapshot and creates the container.

        The spec of an image that is known already is built while containerd prepares the snapshot.

        Args:
            group: ends after the Create of the task, which may share the shim of other tasks.
        """
        snapshot = asyncio.ensure_future(self._prepare_snapshot())
        mounts, (document, spec_json) = await all_ended(snapshot, self._build_spec(snapshot))
        if self._services.settings.shim_per == ALLOC and self._plan.runtime.groups:
            joining = self._services.shim_groups.joining(
                self._task.alloc_id, self._plan.runtime, self._id, self._containerd.has_shim
            )
            self._member = await group.enter_async_context(joining)
            spec_json = with_shim_group(spec_json, self._member.group)
            self._log("shim chosen")
        creating = self._containerd.containers.create(
            ContainerRecord(
                id=self._id,
                labels=self._labels,
                image=self._image.name,
                runtime=self._plan.runtime.name,
                runtime_binary=self._plan.runtime.binary_name,
                spec_json=spec_json,
                snapshotter=self._plan.image.snapshotter,
                snapshot_key=identifiers.snapshot_key(self._id),
            )
        )
        delete = self._containerd.containers.delete
        await self._undo.create(creating, "container", delete, self._id)
        self._log("container created")
        return mounts, document

    async def _build_spec(
        self, snapshot: asyncio.Future[tuple[Mount, ...]]
    ) -> tuple[Document, bytes]:
        """Builds the spec and its JSON; waits for the snapshot only to read the image's files."""
        wanted = self._task.user or self._image.config.user
        groups, key = self._options.group_add, self._image.chain_id
        user = remembered(wanted, cache_key=key, more_groups=groups)
        if user is None:
            user = await resolve(wanted, await snapshot, cache_key=key, more_groups=groups)
        for note in plan.notes_on_user(self._options, user):
            self._publish(note)
        try:
            built = await file_servers.run_probed(lambda: self._document(user, None))
        except root_links.NotRemembered:
            mounts = await snapshot
            built = await file_servers.run_probed(lambda: self._document(user, mounts))
        self._log("spec built")
        return built

    def _document(
        self, user: ResolvedUser, mounts: tuple[Mount, ...] | None
    ) -> tuple[Document, bytes]:
        """Builds the spec. Blocks: the image's files are read, and the job chooses the size."""
        placed = mount_targets.place(self._prepared, mounts, self._image.chain_id)
        mount_targets.make(placed)
        return build_and_encode(plan.spec_inputs(placed, self._image, user))

    async def _create_task(self, mounts: tuple[Mount, ...], link: WorkerLink) -> int:
        alloc_id = self._task.alloc_id
        self._undo.later("task", teardown.delete_task, self._services, self._id, alloc_id)
        streams = plan.streams(self._plan, self._options, link.log_path)
        root = tuple(mount.with_options(self._plan.contexts.root_options) for mount in mounts)
        creating = self._containerd.tasks.create(self._id, root, streams)
        try:
            pid = await self._answered(creating)
        except DriverError as error:
            # Without the worker the shim finds no log FIFO, and the shim reports only that.
            await worker_link.check_alive(link, error)
            error.resolution = error.resolution or selinux.advice(error.details)
            raise
        self._log("task created")
        self._logs.close()  # the shim has opened the FIFOs
        if self._task.resources.cpuset_cgroup:
            await asyncio.to_thread(
                join_cpuset,
                self._task.resources,
                pid,
                cgroup_v2=self._services.cgroup_v2,
            )
            self._log("cpuset joined")
        return pid

    async def _answered(self, creating: Awaitable[int]) -> int:
        """Returns the answer of Create.

        Raises:
            DriverError: code UNAVAILABLE; the runtime waits for a file server that gives no answer.
        """
        running = asyncio.ensure_future(creating)
        try:
            await asyncio.wait([running], timeout=_REPORT_AFTER_S)
            if not running.done():
                await preparation.probe_servers(self._parts)
            return await running
        finally:
            running.cancel()

    async def _check_created(self, pid: int, document: Document) -> None:
        """Checks the created process against the spec, before the task's program starts."""

        def check() -> None:
            oom_score.set_score(pid, self._id, self._plan.oom_score_adj)
            if self._plan.runtime.shares_kernel:
                mount_check.check(pid, document, more=self._plan.runtime.adds_gpus)

        if len(document["mounts"]) <= _FEW_MOUNTS:
            check()  # takes less time than a thread takes to begin
        else:
            await asyncio.to_thread(check)
        self._log("mounts checked")

    async def _prepare_health_check(self, link: WorkerLink, document: Document) -> None:
        """Writes the task's health check for the worker, before the worker watches."""
        note = await health_check.prepare(
            self._plan.directory,
            self._options,
            self._image.config,
            document,
            link,
            of_image=self._services.settings.image_healthchecks,
        )
        if note:
            self._publish(note)

    async def _watch(self, link: WorkerLink, pid: int) -> None:
        runtime = self._plan.runtime
        kernel = runtime.shares_kernel
        if not await watch(self._services, self._id, pid, link, host_kernel=kernel):
            raise DriverError(
                f"the shim of container {self._id} has no address that a worker can use",
                details=f"runtime {runtime.name}",
                resolution="use io.containerd.runc.v2",
                code=Code.UNSUPPORTED,
            )
        self._log("worker waits for the exit")

    async def _release(self) -> None:
        """Releases the pins: the runtime has mounted their sources."""
        await self._pinned.release()
        self._log("mount sources released")

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
            log=self._plan.log,
            host_kernel=self._plan.runtime.shares_kernel,
        )
