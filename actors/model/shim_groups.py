"""Groups of containers that share one shim: the tasks of an allocation with the same runtime.

runc's shim has one socket for each group. containerd's start of a container joins the shim that
accepts connections at the socket of the container's group, else starts a shim there.

A group has the id of its first container, as in Kubernetes. So the group's id is the id of its
shim: containerd 2 removes the socket of the shim's own id at the shim's end, and a shim of a later
group never has the socket of an earlier group.

A shim ends after the Delete of its last container, a moment after containerd's answer, and a Create
that joins an ending shim fails. So Creates and Deletes of one allocation wait for each other, and a
container joins a group only if the shim lives and holds another container of the group. While the
first container of a group is created, the other Creates of the allocation wait, to join the group.

The plugin keeps the groups in memory. After a restart of the plugin, the next start of an
allocation begins a group, and costs one more shim.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from containerd.runtimes import Runtime

TASK, ALLOC = "task", "alloc"
"""Values of the driver's option shim_per."""
_UNCERTAIN = {Code.TIMEOUT, Code.UNAVAILABLE}


@dataclass(slots=True, kw_only=True)
class Member:
    """A container of a group. The creator of the container's task sets pid."""

    container_id: str
    runtime: Runtime
    group: str
    pid: int = 0

    @property
    def first(self) -> bool:
        """True for the container whose Create starts the shim."""
        return self.group == self.container_id


class _Alloc:
    """The containers of one allocation in shims that can be shared, and the running calls."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self._retired: set[str] = set()
        self._creating: list[Member] = []
        self._deleting = 0
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def creating(
        self, runtime: Runtime, container_id: str, lives: Callable[[str, int], bool]
    ) -> AsyncGenerator[Member, None]:
        while self._deleting or any(member.first for member in self._creating):
            await self._changed.wait()
        member = self._choose(runtime, container_id, lives)
        self._creating.append(member)
        try:
            yield member
        except BaseException as error:
            if not isinstance(error, DriverError) or error.code in _UNCERTAIN:
                self._retired.add(member.group)
            raise
        else:
            self.members[container_id] = member
        finally:
            self._creating.remove(member)
            self._tell()

    @contextlib.asynccontextmanager
    async def deleting(self, container_id: str) -> AsyncGenerator[None, None]:
        while self._creating:
            await self._changed.wait()
        self._deleting += 1
        try:
            yield
        finally:  # after a failure the shim may be about to end, and counts as ended
            self.members.pop(container_id, None)
            self._deleting -= 1
            self._tell()

    def _choose(
        self, runtime: Runtime, container_id: str, lives: Callable[[str, int], bool]
    ) -> Member:
        """Returns the container with a living group, else with a group of its own."""
        self.members.pop(container_id, None)
        group = container_id
        for member in self.members.values():
            joinable = member.runtime == runtime and member.group not in self._retired
            if joinable and lives(member.container_id, member.pid):
                group = member.group
                break
        return Member(container_id=container_id, runtime=runtime, group=group)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class ShimGroups:
    """All groups of the plugin. Used on the event loop only."""

    def __init__(self) -> None:
        # An allocation stays as long as a member or a running call refers to the allocation.
        self._allocs: weakref.WeakValueDictionary[str, _Alloc] = weakref.WeakValueDictionary()
        self._of: dict[str, _Alloc] = {}

    @contextlib.asynccontextmanager
    async def joining(
        self,
        alloc_id: str,
        runtime: Runtime,
        container_id: str,
        lives: Callable[[str, int], bool],
    ) -> AsyncGenerator[Member, None]:
        """Yields a container with its group; the block creates the container and its task.

        After a Create without a clear answer no other container joins the group: the shim may hang.

        Args:
            alloc_id: the allocation.
            runtime: the container's runtime, which all members of a group share.
            container_id: the container.
            lives: returns whether the shim of a container, with the pid of the container's task,
                accepts connections.
        """
        alloc = self._allocs.setdefault(alloc_id, _Alloc())
        async with alloc.creating(runtime, container_id, lives) as member:
            yield member
        self._of[container_id] = alloc

    @contextlib.asynccontextmanager
    async def leaving(self, alloc_id: str, container_id: str) -> AsyncGenerator[None, None]:
        """Waits for running Creates of the allocation; the block deletes the container's task.

        Args:
            alloc_id: the allocation; empty where the allocation is unknown.
            container_id: the container, in a group or not.
        """
        alloc = self._of.pop(container_id, None) or self._allocs.get(alloc_id)
        if alloc is None:
            yield
            return
        async with alloc.deleting(container_id):
            yield
