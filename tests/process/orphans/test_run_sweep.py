"""Tests of sweeps over the records of dead runs, on a fake containerd and without networks."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from actors.model import ownership
from actors.model.node import Node
from actors.model.nomad import TaskConfig
from actors.model.ownership import RUN, OwnerLabels
from actors.model.settings import DriverSettings
from actors.orphans import peers as presence
from actors.orphans.peers import Presence
from containerd.api.client import Containerd
from containerd.api.records import ContainerRecord
from plugin.host.run.alloc_plan import Alloc
from plugin.host.run.allocdir import AllocDir
from plugin.host.run.record import RunRecord
from plugin.host.run.sweep import before_a_run, networks_and_files
from tests.support.fakes.containerd import FakeContainerd


class Place:
    """A state directory, a root of allocations, and a containerd."""

    def __init__(self, daemon: FakeContainerd, directory: Path) -> None:
        self.node = Node(
            settings=DriverSettings(state_dir=str(directory / "state")),
            containerd=Containerd(daemon.address, daemon.namespace),
            namespace=daemon.namespace,
            cgroup_v2=False,
        )
        self.root = directory / "allocs"

    def killed_run(
        self, *, keep: bool = False, node: Node | None = None, names: Sequence[str] = ("a",)
    ) -> str:
        """Records a killed run with the allocations and returns the name of the run."""
        allocs = [
            Alloc(id=name, label="g", directory=AllocDir(self.root, name), tasks=())
            for name in names
        ]
        record = RunRecord(
            node or self.node, print, cni=(), root=self.root, own_root=True, keep=keep
        )
        record.begin(allocs)
        for alloc in allocs:
            alloc.directory.build(["t"])
        record.end(clean=False)
        return record.name

    async def container(self, owner: str) -> None:
        labels = ownership.labels(
            TaskConfig(id="a/t/1", alloc_id="a", name="t"),
            OwnerLabels(owner=owner, maker="plugin-dead", state_dir=str(self.node.state_dir)),
        )
        record = ContainerRecord(
            id="t-a", labels=labels, image="i", runtime="r", spec_json=b"{}", snapshotter="",
            snapshot_key="",
        )  # fmt: skip
        await self.node.containerd.containers.create(record)

    async def sweep(self, *, dry_run: bool = False) -> list[tuple[str, str]]:
        rows = await networks_and_files(self.node, dry_run=dry_run)
        assert all(row.why for row in rows)
        return [(row.kind, str(row.outcome)) for row in rows]

    def peers(self) -> list[str]:
        return [peer.name for peer in presence.peers(self.node.state_dir)]


@pytest.fixture
def place(runner: asyncio.Runner, tmp_path: Path) -> Iterator[Place]:
    with FakeContainerd() as daemon:
        place = Place(daemon, tmp_path)
        yield place
        runner.run(place.node.containerd.close())


async def test_the_allocations_of_a_dead_run_go_with_the_root_that_it_made(place: Place) -> None:
    place.killed_run()
    found = [("allocation", "orphan"), ("run", "orphan")]
    assert await place.sweep(dry_run=True) == found
    assert (place.root / "a").exists()
    assert await place.sweep() == [("allocation", "removed"), ("run", "removed")]
    assert not place.root.exists()
    assert place.peers() == []


async def test_nothing_of_a_run_goes_while_a_task_of_it_is_there(place: Place) -> None:
    await place.container(place.killed_run())
    assert await place.sweep() == [("run", "kept")]
    assert (place.root / "a/t").exists()
    # The next run removes the task first.
    notes: list[str] = []
    await before_a_run(place.node, notes.append)
    assert [note.split(":")[-1].split()[0] for note in notes] == [
        "container",
        "allocation",
        "run",
    ]
    assert not place.root.exists()


async def test_one_allocation_that_cannot_be_removed_is_one_row_and_the_rest_goes_on(
    place: Place,
) -> None:
    name = place.killed_run(names=("a", "b", "c"))
    away = place.root / "away"
    (place.root / "b").rename(away)
    (place.root / "b").symlink_to(away)
    rows = await networks_and_files(place.node, dry_run=False)
    assert [str(row.outcome) for row in rows] == ["removed", "not removed", "removed", "kept"]
    assert str(place.root / "b") in rows[1].error
    assert (away / "t").exists()
    (place.root / "b").unlink()
    away.rename(place.root / "b")
    assert place.peers() == [name]
    assert ("run", "removed") in await place.sweep()


async def test_an_allocation_of_1500_nested_directories_is_removed(place: Place) -> None:
    place.killed_run()
    deepest = place.root / "a/t/local"
    for _ in range(1500):
        deepest /= "d"
        deepest.mkdir()
    assert await place.sweep() == [("allocation", "removed"), ("run", "removed")]
    assert not place.root.exists()


async def test_what_was_to_be_kept_is_kept(place: Place) -> None:
    place.killed_run(keep=True)
    assert await place.sweep() == [("run", "removed")]
    assert (place.root / "a/t").exists()


async def test_a_run_on_another_containerd_is_left_to_who_asks_that_one(place: Place) -> None:
    name = place.killed_run(node=dataclasses.replace(place.node, namespace="other"))
    assert await place.sweep() == [("run", "kept")]
    assert place.peers() == [name]


async def test_a_record_that_says_nothing_goes_and_one_that_nobody_understands_stays(
    place: Place,
) -> None:
    silent, strange = (Presence(place.node.state_dir, RUN) for _ in range(2))
    strange.publish(allocs=3)
    assert await place.sweep() == []
    silent.close()
    strange.close()
    assert await place.sweep() == [("run", "kept")]
    assert place.peers() == [strange.name]


async def test_a_containerd_that_is_away_stops_no_run(place: Place) -> None:
    place.killed_run()
    nowhere = Containerd("/nowhere/containerd.sock", place.node.namespace)
    notes: list[str] = []
    node = dataclasses.replace(place.node, containerd=nowhere)
    await before_a_run(node, notes.append)
    await nowhere.close()
    (note,) = notes
    assert "objects of a killed run stay for now: containerd does not answer" in note
    assert (place.root / "a/t").exists()
