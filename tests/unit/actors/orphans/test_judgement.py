"""What is an orphan: every reason to let something be, and how long it takes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from actors.model.nomad import TaskConfig
from actors.model.ownership import OwnerLabels, labels, owners, read_labels
from actors.orphans.judgement import Kind, Known, Sightings, Thing, Verdict, judge

KNOWN = Known(
    state_dir="/run/x",
    maker="plugin-me",
    tracked=frozenset({"tracked"}),
    nodes=frozenset({"node"}),
    alive=frozenset({"plugin-me", "plugin-other", "run-alive"}),
    given_up=frozenset({"gone"}),
)


def thing(kind: Kind = Kind.CONTAINER, **more: Any) -> Thing:
    made = OwnerLabels(
        owner=more.pop("owner", "node"),
        maker=more.pop("maker", "plugin-dead"),
        state_dir=more.pop("state_dir", "/run/x"),
    )
    fields = {"name": "c", "container": "c", "since": 1000.0, **more}
    return Thing(kind=kind, mark=made, **fields)


@pytest.mark.parametrize(
    ("found", "verdict", "why"),
    [
        (thing(), Verdict.ORPHAN, "no task of Nomad owns it"),
        (thing(maker="plugin-me"), Verdict.ORPHAN, "no task of Nomad owns it"),
        (thing(running=True), Verdict.ORPHAN, "no task of Nomad owns it"),
        (thing(container="tracked"), Verdict.LIVE, "this plugin looks after its task"),
        (thing(maker="plugin-other"), Verdict.LIVE, "the plugin that made it lives"),
        (thing(running=True, watched=True), Verdict.LIVE, "another plugin looks after"),
        (thing(state_dir="/run/y"), Verdict.KEPT, "the state directory /run/y"),
        (thing(state_dir=""), Verdict.KEPT, "an earlier release"),
        (thing(owner="far"), Verdict.KEPT, "node far may come back"),
        (thing(owner=""), Verdict.KEPT, "did not say who it is"),
        (thing(owner="/srv/a"), Verdict.KEPT, "the agent of /srv/a may come back"),
        (thing(owner="gone"), Verdict.ORPHAN, "node gone is given up"),
        (thing(owner="gone", maker="plugin-other"), Verdict.LIVE, "the plugin that made it"),
        (thing(owner="gone", watched=True), Verdict.LIVE, "another plugin looks after"),
        (thing(owner="run-alive"), Verdict.LIVE, "run-alive lives"),
        (thing(owner="run-dead"), Verdict.ORPHAN, "`containerd-driver run` is gone"),
        (thing(owner="run-dead", maker="plugin-other"), Verdict.LIVE, "the plugin that made"),
        (thing(owner="run-dead", state_dir="/run/y"), Verdict.KEPT, "the state directory"),
        (thing(Kind.SNAPSHOT), Verdict.ORPHAN, "no task of Nomad owns it"),
        (thing(Kind.WORKER, watched=True), Verdict.LIVE, "another plugin looks after"),
        (thing(Kind.DIRECTORY, state_dir=""), Verdict.KEPT, "an earlier release"),
    ],
)
def test_what_is_of_a_task_is_an_orphan_only_where_all_is_known(
    found: Thing, verdict: Verdict, why: str
) -> None:
    judgement = judge(found, KNOWN)
    assert judgement.verdict is verdict
    assert why in judgement.why
    assert judgement.certain is (verdict is Verdict.ORPHAN and "run-" in found.mark.owner)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        # Of a task that lives: its maker is gone, or has begun it.
        (thing(Kind.MOUNTS, container="tracked"), Verdict.ORPHAN),
        (thing(Kind.MOUNTS, container="tracked", maker="plugin-me"), Verdict.LIVE),
        (thing(Kind.MOUNTS, maker="plugin-other", owner="far"), Verdict.LIVE),
        (thing(Kind.MOUNTS, maker="plugin-me"), Verdict.ORPHAN),
        (thing(Kind.MOUNTS, owner="far"), Verdict.ORPHAN),
        (thing(Kind.MOUNTS, maker="", state_dir="", owner=""), Verdict.ORPHAN),
        (thing(Kind.LEASE, container="", owner=""), Verdict.ORPHAN),
        (thing(Kind.LEASE, container="", owner="", maker="plugin-other"), Verdict.LIVE),
        (thing(Kind.LEASE, container="", owner="", maker="plugin-me"), Verdict.LIVE),
        (thing(Kind.LEASE, container="", owner="", maker="", state_dir=""), Verdict.KEPT),
        (thing(Kind.LEASE, container="", state_dir="/run/y"), Verdict.KEPT),
        (thing(Kind.EXEC, container="tracked"), Verdict.ORPHAN),
    ],
)
def test_what_only_its_plugin_needs_goes_with_the_plugin(found: Thing, verdict: Verdict) -> None:
    assert judge(found, KNOWN).verdict is verdict


def test_a_command_knows_of_no_node_and_so_condemns_none() -> None:
    known = Known(state_dir="/run/x", alive=frozenset({"plugin-1"}))
    assert judge(thing(), known).verdict is Verdict.KEPT
    assert judge(thing(owner="run-dead"), known).verdict is Verdict.ORPHAN


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
    sightings = Sightings(300)
    still, alive = thing(), thing(name="r", running=True)
    assert sightings.see([still, alive], now=0.0) == [still, alive]
    assert not sightings.is_due(still, 299.0, clock=9999.0)
    assert sightings.is_due(still, 300.0, clock=9999.0)
    assert not sightings.is_due(alive, 599.0, clock=9999.0)
    assert sightings.is_due(alive, 600.0, clock=9999.0)


def test_what_was_somebodys_meanwhile_waits_anew() -> None:
    sightings = Sightings(300)
    found = thing()
    sightings.see([found], now=0.0)
    sightings.see([], now=200.0)
    assert sightings.see([found], now=250.0) == [found]
    assert not sightings.is_due(found, 400.0, clock=9999.0)


def test_a_later_one_of_the_same_name_waits_anew() -> None:
    sightings = Sightings(300)
    sightings.see([thing()], now=0.0)
    later = dataclasses.replace(thing(), mark=thing(maker="plugin-later").mark)
    assert sightings.see([later], now=200.0) == [later]
    assert not sightings.is_due(later, 400.0, clock=9999.0)


def test_what_is_young_by_the_clock_waits_however_long_it_was_seen() -> None:
    sightings = Sightings(300)
    young = thing(since=9000.0)
    sightings.see([young], now=0.0)
    assert not sightings.is_due(young, 10_000.0, clock=9299.0)
    assert sightings.is_due(young, 10_000.0, clock=9300.0)
