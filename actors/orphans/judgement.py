"""What is an orphan: the decision alone, pure, over what was found and what is known.

Whatever cannot be told stays. Nobody says when an agent has recovered all its tasks, and an agent
may be away for hours, so a task of a node counts as lost only for a plugin to which that very node
has given or recovered tasks, and only after a time. A `containerd-driver run` never comes back:
what a dead one made is an orphan at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from actors.model.ownership import RUN, OwnerLabels


class Kind(StrEnum):
    """What may be left. The values are words for people."""

    CONTAINER = "container"
    SNAPSHOT = "snapshot"
    LEASE = "lease"
    WORKER = "worker"
    DIRECTORY = "state directory"
    MOUNTS = "held mounts"
    EXEC = "exec session"


class Verdict(StrEnum):
    """LIVE: somebody needs it. KEPT: it cannot be told. ORPHAN: nobody will ever need it."""

    LIVE = "live"
    KEPT = "kept"
    ORPHAN = "orphan"


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One thing that was found.

    Attributes:
        kind: what it is.
        name: its own name, an id or a path.
        container: of which task, by the container's id; empty for the lease of a pull.
        mark: whose it is.
        since: seconds of the epoch, when it was made.
        running: whether its process lives.
        watched: whether another plugin is connected to the task's worker, or may be.
        snapshotter: where its snapshot is.
        task_id: Nomad's id, where it says so.
        pid: of a worker that nobody can connect to.
    """

    kind: Kind
    name: str
    container: str
    mark: OwnerLabels
    since: float
    running: bool = False
    watched: bool = False
    snapshotter: str = ""
    task_id: str = ""
    pid: int = 0

    @property
    def key(self) -> tuple[str, str, str]:
        """Tells it apart from a later one of the same name."""
        return self.kind, self.name, self.mark.maker


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the one who judges knows.

    Attributes:
        state_dir: its state directory.
        maker: its own name among the plugins; empty for a command.
        tracked: ids of the containers of tasks that it looks after.
        nodes: agents that have given it tasks, or had it recover them, by all their names.
        alive: names of the plugins and runs that live.
        given_up: agents that will not come back, as the operator says.
    """

    state_dir: str
    maker: str = ""
    tracked: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()
    alive: frozenset[str] = frozenset()
    given_up: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """certain: true needs no time of grace."""

    verdict: Verdict
    why: str
    certain: bool = False


def judge(thing: Thing, known: Known) -> Judgement:
    """Returns whether somebody needs it."""
    made = thing.mark
    if thing.kind is Kind.EXEC:
        return _orphan("the plugin that ran it is gone")
    if made.state_dir not in {"", known.state_dir}:
        return _kept(f"it belongs to the state directory {made.state_dir}")
    if thing.kind is Kind.MOUNTS or not thing.container:
        return _of_a_start(thing, known)
    if thing.container in known.tracked:
        return _live("this plugin looks after its task")
    if thing.pid:
        return _orphan("its state directory is gone, and so is its container")
    if not made.state_dir:
        return _kept("an earlier release made it, and did not say for whom")
    if made.maker in known.alive and made.maker != known.maker:
        return _live("the plugin that made it lives")
    if thing.watched:
        return _live("another plugin looks after its task")
    return _by_owner(made.owner, known)


def _of_a_start(thing: Thing, known: Known) -> Judgement:
    """Returns what only its maker ever needs: the mounts of a start, the lease of a pull."""
    maker = thing.mark.maker
    busy = not thing.container or thing.container in known.tracked
    if maker in known.alive and (maker != known.maker or busy):
        return _live("the plugin that made it lives")
    if not thing.container and not thing.mark.state_dir:
        return _kept("an earlier release made it, and did not say for whom")
    owner = thing.mark.owner
    certain = owner.startswith(RUN) and owner not in known.alive
    return _orphan("the plugin that made it is gone", certain=certain)


def _by_owner(owner: str, known: Known) -> Judgement:
    if owner.startswith(RUN):
        if owner in known.alive:
            return _live(f"{owner} lives")
        return _orphan("its `containerd-driver run` is gone", certain=True)
    if not owner:
        return _kept("its agent did not say who it is")
    agent = f"the agent of {owner}" if owner.startswith("/") else f"node {owner}"
    if owner in known.given_up:
        return _orphan(f"{agent} is given up")
    if owner not in known.nodes:
        return _kept(f"{agent} may come back for it")
    return _orphan("no task of Nomad owns it")


def _live(why: str) -> Judgement:
    return Judgement(verdict=Verdict.LIVE, why=why)


def _kept(why: str) -> Judgement:
    return Judgement(verdict=Verdict.KEPT, why=why)


def _orphan(why: str, *, certain: bool = False) -> Judgement:
    return Judgement(verdict=Verdict.ORPHAN, why=why, certain=certain)


class Sightings:
    """Since when each orphan has been one without a break, by a clock that nobody sets.

    Args:
        grace_s: how long it has to be one before it may go, twice as long while it runs.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._first: dict[tuple[str, str, str], float] = {}

    def see(self, orphans: Iterable[Thing], now: float) -> list[Thing]:
        """Takes down what is one now, forgets what is none any more; gives the new ones."""
        there = {thing.key: thing for thing in orphans}
        new = [thing for key, thing in there.items() if key not in self._first]
        self._first = {key: self._first.get(key, now) for key in there}
        return new

    def is_due(self, thing: Thing, now: float, clock: float) -> bool:
        """Whether its time is over; clock is the epoch's, which says how old the thing is."""
        wait_s = self._grace_s * (2 if thing.running else 1)
        seen = now - self._first.get(thing.key, now)
        return seen >= wait_s and clock - thing.since >= self._grace_s
