"""Decision about an object: live, kept or an orphan. No I/O: the inputs are lists of facts.

An object whose owner is unknown is kept. No agent reports the end of its recovery, and an agent may
be away for hours. Therefore a task of a node is an orphan only for a plugin to which the same node
has given or recovered tasks, and only after a grace time. A `containerd-driver run` never comes
back, so the objects of a dead run are orphans at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from actors.model.ownership import RUN, OwnerLabels
from proto.values import dataclass


class ResourceKind(StrEnum):
    """Kinds of objects that a driver may leave. People read the values."""

    CONTAINER = "container"
    SNAPSHOT = "snapshot"
    LEASE = "lease"
    WORKER = "worker"
    DIRECTORY = "state directory"
    MOUNTS = "held mounts"
    EXEC = "exec session"


class OwnerState(StrEnum):
    """LIVE: an owner needs the object. KEPT: the owner is unknown. ORPHAN: no owner is left."""

    LIVE = "live"
    KEPT = "kept"
    ORPHAN = "orphan"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """An object of a driver, in containerd, on the disk or in the process table.

    Attributes:
        kind: kind of the object.
        name: name of the object, an id or a path.
        container: id of the container of the object's task; empty for the lease of a pull.
        owner: owner labels of the object.
        created_at_s: seconds of the epoch at which the object was created.
        running: True if the object's process lives.
        watched: True if another plugin is, or may be, connected to the task's worker.
        snapshotter: snapshotter of the task's snapshot; may be empty.
        task_id: Nomad's id of the task; empty if the object does not name the task.
        pid: process id of a worker without a reachable socket; 0 for other objects.
    """

    kind: ResourceKind
    name: str
    container: str
    owner: OwnerLabels
    created_at_s: float
    running: bool = False
    watched: bool = False
    snapshotter: str = ""
    task_id: str = ""
    pid: int = 0

    @property
    def key(self) -> tuple[str, str, str]:
        """Key that differs from the key of a later object with the same name."""
        return self.kind, self.name, self.owner.maker


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Facts by which `decide` decides.

    Attributes:
        state_dir: state directory of this process.
        maker: name of this plugin in owner labels; empty for a command.
        tracked: ids of the containers of this process's tasks.
        nodes: agents that have given tasks to this process, by all names of each agent.
        alive: names of the plugins and runs that live.
        given_up: agents that will not come back, according to the operator.
    """

    state_dir: str
    maker: str = ""
    tracked: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()
    alive: frozenset[str] = frozenset()
    given_up: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """State of an object, and the reason. A `certain` orphan needs no grace time."""

    state: OwnerState
    reason: str
    certain: bool = False


def decide(resource: Resource, facts: Facts) -> Decision:
    """Decides about an object.

    Args:
        resource: the object.
        facts: facts about live owners.
    """
    owner = resource.owner
    if resource.kind is ResourceKind.EXEC:
        return _orphan("the plugin of the exec session has ended")
    if owner.state_dir not in {"", facts.state_dir}:
        return _kept(f"another state directory: {owner.state_dir}")
    if resource.kind is ResourceKind.MOUNTS or not resource.container:
        return _of_a_start(resource, facts)
    if resource.container in facts.tracked:
        return _live("this plugin has the task")
    if resource.pid:
        return _orphan("state directory and container are gone")
    if not owner.state_dir:
        return _kept("an earlier release created the object, without an owner label")
    if owner.maker in facts.alive and owner.maker != facts.maker:
        return _live("the creating plugin lives")
    if resource.watched:
        return _live("another plugin has the task")
    return _by_owner(owner.owner, facts)


def _of_a_start(resource: Resource, facts: Facts) -> Decision:
    """Decides about mounts of a start and leases of a pull: only the creating plugin needs both."""
    maker = resource.owner.maker
    busy = not resource.container or resource.container in facts.tracked
    if maker in facts.alive and (maker != facts.maker or busy):
        return _live("the creating plugin lives")
    if not resource.container and not resource.owner.state_dir:
        return _kept("an earlier release created the object, without an owner label")
    owner = resource.owner.owner
    certain = owner.startswith(RUN) and owner not in facts.alive
    return _orphan("the creating plugin has ended", certain=certain)


def _by_owner(owner: str, facts: Facts) -> Decision:
    if owner.startswith(RUN):
        if owner in facts.alive:
            return _live(f"{owner} lives")
        return _orphan("the `containerd-driver run` is gone", certain=True)
    if not owner:
        return _kept("the owner label names no agent")
    agent = f"the agent of {owner}" if owner.startswith("/") else f"node {owner}"
    if owner in facts.given_up:
        return _orphan(f"{agent} is given up")
    if owner not in facts.nodes:
        return _kept(f"{agent} may come back for the task")
    return _orphan("no task of Nomad owns the object")


def _live(reason: str) -> Decision:
    return Decision(state=OwnerState.LIVE, reason=reason)


def _kept(reason: str) -> Decision:
    return Decision(state=OwnerState.KEPT, reason=reason)


def _orphan(reason: str, *, certain: bool = False) -> Decision:
    return Decision(state=OwnerState.ORPHAN, reason=reason, certain=certain)


class FirstSeen:
    """Times since which objects are orphans without a break, by the monotonic clock.

    Args:
        grace_s: seconds that an object must stay an orphan; twice that while its process runs.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._first: dict[tuple[str, str, str], float] = {}

    def update(self, orphans: Iterable[Resource], now: float) -> list[Resource]:
        """Replaces the list of orphans, and returns the new orphans.

        Args:
            orphans: all orphans of this sweep. Other objects are forgotten.
            now: monotonic time in seconds.
        """
        present = {resource.key: resource for resource in orphans}
        new = [resource for key, resource in present.items() if key not in self._first]
        self._first = {key: self._first.get(key, now) for key in present}
        return new

    def is_due(self, resource: Resource, now: float, epoch_s: float) -> bool:
        """Returns True if the grace time of an orphan is over.

        Args:
            resource: the orphan.
            now: monotonic time in seconds.
            epoch_s: seconds of the epoch, to compute the object's age.
        """
        wait_s = self._grace_s * (2 if resource.running else 1)
        orphan_s = now - self._first.get(resource.key, now)
        return orphan_s >= wait_s and epoch_s - resource.created_at_s >= self._grace_s
