"""Tests of the reconciler's removals and exceptions, on a fake containerd and a fake clock."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from actors.model import identifiers
from actors.model.ownership import LABEL_MAKER, LABEL_STATE_DIR, PLUGIN, RUN
from actors.orphans.peers import Presence
from actors.orphans.reconciler import Outcome
from containerd.api import methods
from containerd.api.records import ContainerRecord
from proto.errors import DriverError
from tests.support.fakes.containerd import FakeContainerd
from tests.support.fakes.orphans import GRACE_S, NODE, OLD_S, SNAPSHOTTER, Place, told


@pytest.fixture
def place(runner: asyncio.Runner, tmp_path: Path) -> Iterator[Place]:
    with FakeContainerd() as daemon:
        place = Place(daemon, tmp_path)
        yield place
        runner.run(place.node.containerd.close())
        place.own.withdraw()


async def test_an_orphan_goes_with_all_that_belongs_to_it_once_its_time_is_over(
    place: Place,
) -> None:
    name = await place.container("a")
    assert await place.after(0) == {name: "waits"}
    assert await place.after(GRACE_S - 1) == {name: "waits"}
    assert place.left() == {name, f"{name}-snapshot", identifiers.lease_id(name)}
    assert await place.after(1) == {name: "removed"}
    assert place.left() == set()
    assert await place.after(1) == {}
    assert place.tasks.claims == []


async def test_a_snapshot_a_lease_and_a_directory_are_found_without_their_container(
    place: Place,
) -> None:
    a = await place.snapshot("a")
    b = await place.snapshot("b")
    await place.node.containerd.snapshots.remove(SNAPSHOTTER, identifiers.snapshot_key(b))
    c = str(place.directory("t-c"))
    found = {f"{a}-snapshot", identifiers.lease_id(a), identifiers.lease_id(b), c}
    assert await place.after(0) == dict.fromkeys(found, "waits")
    assert await place.after(GRACE_S) == dict.fromkeys(found, "removed")
    assert place.left() == set()


async def test_what_is_young_makes_all_that_belongs_to_it_wait(place: Place) -> None:
    name = await place.snapshot("a")
    place.daemon.metadata.leases[identifiers.lease_id(name)].created_at.GetCurrentTime()
    await place.after(0)
    assert set((await place.after(2 * GRACE_S)).values()) == {"waits"}
    assert place.left() == {f"{name}-snapshot", identifiers.lease_id(name)}


async def test_a_dry_run_only_tells(place: Place) -> None:
    name = await place.container("a")
    dry = place.reconcile(dry_run=True)
    await place.after(0, dry)
    assert await place.after(GRACE_S, dry) == {name: "orphan"}
    assert name in place.left()


async def test_what_others_own_or_may_own_stays(place: Place) -> None:
    other = Presence(place.node.state_dir, PLUGIN)
    run = Presence(place.node.state_dir, RUN)
    place.tasks.containers.add(await place.container("tracked"))
    await place.container("started-elsewhere", maker=other.name)
    await place.container("of-a-run", owner=run.name)
    kept = {
        await place.container("far", owner="node-2"),
        await place.container("unowned", owner=""),
        await place.container("elsewhere", **{LABEL_STATE_DIR: "/run/other"}),
        await place.container("old", **{LABEL_STATE_DIR: ""}),
    }
    everything = place.left()
    await place.after(0)
    assert await place.after(10 * GRACE_S) == dict.fromkeys(kept, "kept")
    assert place.left() == everything
    other.withdraw()
    run.withdraw()
    await place.after(1)
    removed = {"t-started-elsewhere": "removed", "t-of-a-run": "removed"}
    assert await place.after(GRACE_S) == {**dict.fromkeys(kept, "kept"), **removed}


async def test_containers_of_others_are_not_even_told(place: Place) -> None:
    client, said = place.node.containerd, place.labels("a", NODE, "plugin-dead")
    await client.leases.create("l", expire_s=3600, labels={})
    for name, labels in (("t-b", {}), ("t-a-copy", said), ("web", {"x": "y"})):
        record = ContainerRecord(
            id=name, labels=labels, image="i", runtime="r", spec_json=b"", snapshotter="",
            snapshot_key="",
        )  # fmt: skip
        await client.containers.create(record)
        place.daemon.metadata.containers[name].created_at.seconds -= OLD_S
        await client.snapshots.prepare(SNAPSHOTTER, f"{name}-snapshot", place.chain, said, "l")
    await client.leases.create("nomad-driver-containerd-t-x", expire_s=3600, labels={})
    (place.node.state_dir / "tasks" / "web").mkdir(parents=True)
    await place.after(0)
    assert await place.after(10 * GRACE_S) == {}
    assert {"t-b", "t-a-copy", "web", "l"} <= place.left()


async def test_a_directory_says_whose_it_is_or_stays(place: Place) -> None:
    silent = place.directory("t-silent")
    (silent / "owner").unlink()
    broken = place.directory("t-broken")
    (broken / "owner").write_text("{")
    foreign = place.directory("t-foreign")
    note = json.loads((foreign / "owner").read_text())
    (foreign / "owner").write_text(json.dumps({**note, "namespace": "other"}))
    await place.after(0)
    kept = {str(silent): "kept", str(broken): "kept"}
    assert await place.after(10 * GRACE_S) == kept
    assert silent.exists()
    assert foreign.exists()


async def test_a_containerd_that_is_away_makes_nothing_an_orphan(place: Place) -> None:
    path = place.directory("t-a")
    await place.after(0)
    place.daemon.down()
    with pytest.raises(DriverError, match="containerd does not answer"):
        await place.after(10 * GRACE_S)
    assert path.exists()


@pytest.mark.parametrize(
    "method", [methods.CONTAINER_LIST, methods.SNAPSHOT_LIST, methods.LEASE_LIST, methods.TASK_GET]
)
async def test_a_look_that_is_not_whole_removes_nothing(place: Place, method: Any) -> None:
    await place.container("a")
    everything = place.left()
    await place.after(0)
    place.daemon.fail(method, grpc.StatusCode.UNKNOWN, "a disk full of sorrow")
    with pytest.raises(DriverError, match="sorrow"):
        await place.after(10 * GRACE_S)
    assert place.left() == everything


async def test_a_task_whose_shim_hangs_counts_as_running_and_stops_no_sweep(place: Place) -> None:
    a, b = await place.container("a"), await place.container("b")
    hung = grpc.StatusCode.DEADLINE_EXCEEDED, "context deadline exceeded"
    place.daemon.fail(methods.TASK_GET, *hung, container=a)
    await place.after(0)
    assert await place.after(GRACE_S) == {a: "waits", b: "removed"}


async def test_one_that_cannot_be_removed_does_not_stop_the_others_and_is_tried_again(
    place: Place,
) -> None:
    a, b = await place.container("a"), await place.container("b")
    place.daemon.fail(methods.CONTAINER_DELETE, grpc.StatusCode.UNKNOWN, "no", container=a)
    await place.after(0)
    assert await place.after(GRACE_S) == {a: "not removed", b: "removed"}
    place.daemon.faults.clear()
    assert await place.after(1) == {a: "removed"}
    assert place.left() == set()


async def test_what_comes_to_be_between_the_look_and_the_removal_is_left_alone(
    place: Place,
) -> None:
    name = await place.snapshot("a")
    await place.after(0)
    place.clock += GRACE_S

    async def begun_again(container: str) -> bool:
        # Nomad starts the task once more, by another plugin, just now.
        client = place.node.containerd
        await client.snapshots.remove(SNAPSHOTTER, identifiers.snapshot_key(container))
        await client.leases.delete(identifiers.lease_id(container))
        await place.container("a", maker=place.own.name)
        place.tasks.claims.append(container)
        return True

    place.tasks.claim = begun_again  # type: ignore[method-assign]
    assert set(told(await place.reconciler.sweep()).values()) == {"waits"}
    assert {name, f"{name}-snapshot"} <= place.left()


async def test_another_one_of_the_same_name_is_not_taken_for_the_orphan(place: Place) -> None:
    name = await place.container("a")
    await place.after(0)

    async def replaced(container: str) -> bool:
        labels = place.daemon.metadata.containers[container].labels
        labels[LABEL_MAKER] = place.own.name
        place.tasks.claims.append(container)
        return True

    place.tasks.claim = replaced  # type: ignore[method-assign]
    assert await place.after(GRACE_S) == {name: "waits"}
    assert name in place.left()


async def test_what_is_begun_while_the_reconciler_looks_is_no_orphan(place: Place) -> None:
    asked: list[str] = []

    async def tracked() -> frozenset[str]:
        asked.append("")
        if len(asked) == 1:
            await place.container("a", maker=place.own.name)
            return frozenset()
        return frozenset({"t-a"})

    place.tasks.tracked = tracked  # type: ignore[method-assign]
    assert await place.after(0) == {}


async def test_nothing_goes_while_a_part_of_it_is_in_use(place: Place) -> None:
    other = Presence(place.node.state_dir, PLUGIN)
    name = await place.snapshot("a")
    place.directory(name, maker=other.name)
    assert await place.after(0) == {}
    assert await place.after(10 * GRACE_S) == {}
    assert f"{name}-snapshot" in place.left()
    other.withdraw()


async def test_what_a_start_has_taken_meanwhile_is_not_removed(place: Place) -> None:
    name = await place.container("a")
    await place.after(0)
    place.tasks.refuse = True
    assert await place.after(GRACE_S) == {name: "waits"}
    assert name in place.left()


async def test_the_lease_of_a_pull_goes_when_its_plugin_is_gone(place: Place) -> None:
    other = Presence(place.node.state_dir, PLUGIN)
    client, state_dir = place.node.containerd, str(place.node.state_dir)
    for number, maker in ((1, other.name), (2, place.own.name), (3, "plugin-dead")):
        labels = {LABEL_MAKER: maker, LABEL_STATE_DIR: state_dir}
        name = identifiers.pull_lease(number)
        await client.leases.create(name, expire_s=3600, labels=labels)
        place.daemon.metadata.leases[name].created_at.seconds -= OLD_S
    await place.after(0)
    dead, others = identifiers.pull_lease(3), identifiers.pull_lease(1)
    assert await place.after(GRACE_S) == {dead: "removed"}
    other.withdraw()
    await place.after(0)
    assert await place.after(GRACE_S) == {others: "removed"}
    assert place.left() == {identifiers.pull_lease(2)}


async def test_a_command_removes_what_dead_runs_left_at_once_and_of_nodes_what_is_given_up(
    place: Place,
) -> None:
    place.node = dataclasses.replace(place.node, maker="")
    run = await place.container("run", owner="run-dead")
    place.daemon.metadata.containers[run].created_at.GetCurrentTime()
    mine, gone = await place.container("mine"), await place.container("g", owner="node-2")
    command = place.reconcile(nodes=list, given_up=frozenset({"node-2"}))
    assert told(await command.sweep_once()) == {run: "removed", mine: "kept", gone: "removed"}
    assert place.left() >= {mine}
    young = await place.container("y", owner="node-2")
    place.daemon.metadata.containers[young].created_at.GetCurrentTime()
    assert told(await command.sweep_once())[young] == "waits"


async def test_every_finding_has_a_reason(place: Place) -> None:
    await place.container("a")
    await place.container("far", owner="node-2")
    results = await place.reconciler.inspect()
    assert {(result.outcome, bool(result.reason)) for result in results} == {
        (Outcome.FOUND, True),
        (Outcome.KEPT, True),
    }


async def test_every_decision_of_a_sweep_is_a_line_with_the_reason(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="actors.orphans.reconciler")
    mine, far = await place.container("a"), await place.container("b", owner="node-2")
    assert await place.after(0.0) == {mine: "waits", far: "kept"}
    assert await place.after(GRACE_S) == {mine: "removed", far: "kept"}
    lines = [vars(record) for record in caplog.records]
    owned, lost = "no task of Nomad owns the object", "node node-2 may come back for the task"
    assert [(line["msg"], line["reason"]) for line in lines if line["container_id"] == mine] == [
        ("object is an orphan", owned),
        ("orphan found", owned),
        ("orphan waits for its grace time, or is needed again", owned),
        ("object is an orphan", owned),
        ("orphan removed", owned),
    ]
    assert [(line["msg"], line["reason"]) for line in lines if line["container_id"] == far] == [
        ("object has an unknown owner, kept", lost)
    ] * 2
    assert {(line["task_id"], line["alloc_id"]) for line in lines} == {
        ("a/t/1", "a"),
        ("b/t/1", "b"),
    }
