"""The decision about orphans: every reason to keep an object, and the periods of grace."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from actors.model.nomad import TaskConfig
from actors.model.ownership import OwnerLabels, labels, owners, read_labels
from actors.orphans.decision import (
    Facts,
    FirstSeen,
    OwnerState,
    Resource,
    ResourceKind,
    decide,
)

FACTS = Facts(
    state_dir="/run/x",
    maker="plugin-me",
    tracked=frozenset({"tracked"}),
    nodes=frozenset({"node"}),
    alive=frozenset({"plugin-me", "plugin-other", "run-alive"}),
    given_up=frozenset({"gone"}),
)


def thing(kind: ResourceKind = ResourceKind.CONTAINER, **more: Any) -> Resource:
    made = OwnerLabels(
        owner=more.pop("owner", "node"),
        maker=more.pop("maker", "plugin-dead"),
        state_dir=more.pop("state_dir", "/run/x"),
    )
    fields = {"name": "c", "container": "c", "created_at_s": 1000.0, **more}
    return Resource(kind=kind, owner=made, **fields)


@pytest.mark.parametrize(
    ("found", "verdict", "reason"),
    [
        (thing(), OwnerState.ORPHAN, "no task of Nomad owns the object"),
        (thing(maker="plugin-me"), OwnerState.ORPHAN, "no task of Nomad owns the object"),
        (thing(running=True), OwnerState.ORPHAN, "no task of Nomad owns the object"),
        (thing(container="tracked"), OwnerState.LIVE, "this plugin has the task"),
        (thing(maker="plugin-other"), OwnerState.LIVE, "the creating plugin lives"),
        (thing(running=True, watched=True), OwnerState.LIVE, "another plugin has the task"),
        (thing(state_dir="/run/y"), OwnerState.KEPT, "another state directory: /run/y"),
        (thing(state_dir=""), OwnerState.KEPT, "an earlier release"),
        (thing(owner="far"), OwnerState.KEPT, "node far may come back"),
        (thing(owner=""), OwnerState.KEPT, "the owner label names no agent"),
        (thing(owner="/srv/a"), OwnerState.KEPT, "the agent of /srv/a may come back"),
        (thing(owner="gone"), OwnerState.ORPHAN, "node gone is given up"),
        (thing(owner="gone", maker="plugin-other"), OwnerState.LIVE, "the creating plugin"),
        (thing(owner="gone", watched=True), OwnerState.LIVE, "another plugin has the task"),
        (thing(owner="run-alive"), OwnerState.LIVE, "run-alive lives"),
        (thing(owner="run-dead"), OwnerState.ORPHAN, "`containerd-driver run` is gone"),
        (thing(owner="run-dead", maker="plugin-other"), OwnerState.LIVE, "the creating plugin"),
        (thing(owner="run-dead", state_dir="/run/y"), OwnerState.KEPT, "another state directory"),
        (thing(ResourceKind.SNAPSHOT), OwnerState.ORPHAN, "no task of Nomad owns the object"),
        (thing(ResourceKind.WORKER, watched=True), OwnerState.LIVE, "another plugin has the task"),
        (thing(ResourceKind.DIRECTORY, state_dir=""), OwnerState.KEPT, "an earlier release"),
    ],
)
def test_what_is_of_a_task_is_an_orphan_only_where_all_is_known(
    found: Resource, verdict: OwnerState, reason: str
) -> None:
    decision = decide(found, FACTS)
    assert decision.state is verdict
    assert reason in decision.reason
    assert decision.certain is (verdict is OwnerState.ORPHAN and "run-" in found.owner.owner)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        # Objects of a live task: the maker is dead, or has begun the task.
        (thing(ResourceKind.MOUNTS, container="tracked"), OwnerState.ORPHAN),
        (thing(ResourceKind.MOUNTS, container="tracked", maker="plugin-me"), OwnerState.LIVE),
        (thing(ResourceKind.MOUNTS, maker="plugin-other", owner="far"), OwnerState.LIVE),
        (thing(ResourceKind.MOUNTS, maker="plugin-me"), OwnerState.ORPHAN),
        (thing(ResourceKind.MOUNTS, owner="far"), OwnerState.ORPHAN),
        (thing(ResourceKind.MOUNTS, maker="", state_dir="", owner=""), OwnerState.ORPHAN),
        (thing(ResourceKind.LEASE, container="", owner=""), OwnerState.ORPHAN),
        (thing(ResourceKind.LEASE, container="", owner="", maker="plugin-other"), OwnerState.LIVE),
        (thing(ResourceKind.LEASE, container="", owner="", maker="plugin-me"), OwnerState.LIVE),
        (
            thing(ResourceKind.LEASE, container="", owner="", maker="", state_dir=""),
            OwnerState.KEPT,
        ),
        (thing(ResourceKind.LEASE, container="", state_dir="/run/y"), OwnerState.KEPT),
        (thing(ResourceKind.EXEC, container="tracked"), OwnerState.ORPHAN),
    ],
)
def test_what_only_its_plugin_needs_goes_with_the_plugin(
    found: Resource, verdict: OwnerState
) -> None:
    assert decide(found, FACTS).state is verdict


def test_a_command_knows_of_no_node_and_so_condemns_none() -> None:
    known = Facts(state_dir="/run/x", alive=frozenset({"plugin-1"}))
    assert decide(thing(), known).state is OwnerState.KEPT
    assert decide(thing(owner="run-dead"), known).state is OwnerState.ORPHAN


def test_labels_name_the_owner() -> None:
    owner = OwnerLabels(owner="node", maker="plugin-1", state_dir="/run/x")
    assert read_labels(labels(TaskConfig(id="a/t/1", alloc_id="a", name="t"), owner)) == owner
    assert read_labels({}) == OwnerLabels()


@pytest.mark.parametrize(
    ("node_id", "alloc_dir", "names"),
    [
        ("node", "/srv/nomad/alloc/a", ("node", "/srv/nomad/alloc")),
        ("", "/srv/nomad/alloc/a/", ("/srv/nomad/alloc",)),
        ("", "/a", ()),
        ("", "", ()),
        ("node", "relative/a", ("node",)),
    ],
)
def test_an_agent_is_known_by_its_node_or_by_where_its_allocations_lie(
    node_id: str, alloc_dir: str, names: tuple[str, ...]
) -> None:
    assert owners(node_id, alloc_dir) == names


def test_an_orphan_waits_twice_as_long_while_it_runs() -> None:
    first_seen = FirstSeen(300)
    still, alive = thing(), thing(name="r", running=True)
    assert first_seen.update([still, alive], now=0.0) == [still, alive]
    assert not first_seen.is_due(still, 299.0, epoch_s=9999.0)
    assert first_seen.is_due(still, 300.0, epoch_s=9999.0)
    assert not first_seen.is_due(alive, 599.0, epoch_s=9999.0)
    assert first_seen.is_due(alive, 600.0, epoch_s=9999.0)


def test_what_was_somebodys_meanwhile_waits_anew() -> None:
    first_seen = FirstSeen(300)
    found = thing()
    first_seen.update([found], now=0.0)
    first_seen.update([], now=200.0)
    assert first_seen.update([found], now=250.0) == [found]
    assert not first_seen.is_due(found, 400.0, epoch_s=9999.0)


def test_a_later_one_of_the_same_name_waits_anew() -> None:
    first_seen = FirstSeen(300)
    first_seen.update([thing()], now=0.0)
    later = dataclasses.replace(thing(), owner=thing(maker="plugin-later").owner)
    assert first_seen.update([later], now=200.0) == [later]
    assert not first_seen.is_due(later, 400.0, epoch_s=9999.0)


def test_what_is_young_by_the_clock_waits_however_long_it_was_seen() -> None:
    first_seen = FirstSeen(300)
    young = thing(created_at_s=9000.0)
    first_seen.update([young], now=0.0)
    assert not first_seen.is_due(young, 10_000.0, epoch_s=9299.0)
    assert first_seen.is_due(young, 10_000.0, epoch_s=9300.0)
