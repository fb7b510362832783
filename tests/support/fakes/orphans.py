"""A reconciler on a fake containerd, with a clock and old objects of a test."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from actors.files.state_dir import task_directory
from actors.lifecycle import directory as state_directory
from actors.model import identifiers, ownership
from actors.model.node import Node
from actors.model.nomad import TaskConfig
from actors.model.ownership import PLUGIN, OwnerLabels
from actors.model.settings import DriverSettings
from actors.orphans.peers import Presence
from actors.orphans.reconciler import NoTasks, Reconciler, SweepPolicy, SweepResult
from containerd.api.client import Containerd
from containerd.api.records import ContainerRecord
from tests.support.fakes.containerd import FakeContainerd

NODE = "node-1"
GRACE_S = 300.0
SNAPSHOTTER = "overlayfs"
OLD_S = 3600


class Tasks(NoTasks):
    """A register that a test fills."""

    def __init__(self) -> None:
        self.containers: set[str] = set()
        self.claims: list[str] = []
        self.refuse = False

    async def tracked(self) -> frozenset[str]:
        return frozenset(self.containers)

    async def claim(self, container: str) -> bool:
        if self.refuse:
            return False
        self.claims.append(container)
        return True

    def release(self, container: str) -> None:
        self.claims.remove(container)


class Place:
    """A fake containerd, a state directory, a reconciler of node NODE, and a clock."""

    def __init__(self, daemon: FakeContainerd, directory: Path) -> None:
        self.daemon = daemon
        self.chain = daemon.add_image("i")
        self.own = Presence(directory, PLUGIN)
        self.node = Node(
            settings=DriverSettings(state_dir=str(directory)),
            containerd=Containerd(daemon.address, daemon.namespace),
            namespace=daemon.namespace,
            cgroup_v2=False,
            maker=self.own.name,
        )
        self.tasks = Tasks()
        self.clock = 0.0
        self.reconciler = self.reconcile()

    def reconcile(self, **more: Any) -> Reconciler:
        nodes = more.pop("nodes", lambda: [NODE])
        policy = SweepPolicy(grace_s=GRACE_S, **more)
        return Reconciler(self.node, self.tasks, policy, nodes=nodes, now=lambda: self.clock)

    async def container(
        self, alloc: str, *, owner: str = NODE, maker: str = "plugin-dead", **labels: str
    ) -> str:
        """Makes a container, an hour old, with snapshot, lease and state directory."""
        name = await self.snapshot(alloc, owner=owner, maker=maker, **labels)
        record = ContainerRecord(
            id=name,
            labels={**self.labels(alloc, owner, maker), **labels},
            image="i",
            runtime="io.containerd.runc.v2",
            spec_json=b"{}",
            snapshotter=SNAPSHOTTER,
            snapshot_key=identifiers.snapshot_key(name),
        )
        await self.node.containerd.containers.create(record)
        self.daemon.metadata.containers[name].created_at.seconds -= OLD_S
        self.directory(name, owner, maker)
        return name

    async def snapshot(
        self, alloc: str, *, owner: str = NODE, maker: str = "plugin-dead", **labels: str
    ) -> str:
        """Makes a snapshot under a lease, an hour old; returns the id of the missing container."""
        name = identifiers.container_id(alloc, "t", cgroup_v2=False)
        lease, key = identifiers.lease_id(name), identifiers.snapshot_key(name)
        said = {**self.labels(alloc, owner, maker), **labels}
        await self.node.containerd.leases.create(lease, expire_s=3600, labels=said)
        await self.node.containerd.snapshots.prepare(SNAPSHOTTER, key, self.chain, said, lease)
        self.daemon.metadata.leases[lease].created_at.seconds -= OLD_S
        self.daemon.metadata.snapshots[SNAPSHOTTER, key].info.created_at.seconds -= OLD_S
        return name

    def labels(self, alloc: str, owner: str, maker: str) -> dict[str, str]:
        return ownership.labels(
            TaskConfig(id=f"{alloc}/t/1", alloc_id=alloc, name="t"), self.owner(owner, maker)
        )

    def owner(self, owner: str, maker: str) -> OwnerLabels:
        return OwnerLabels(owner=owner, maker=maker, state_dir=str(self.node.state_dir))

    def directory(self, name: str, owner: str = NODE, maker: str = "plugin-dead") -> Path:
        """Makes a state directory, an hour old."""
        path = task_directory(self.node.state_dir, name)
        state_directory.create_directory(self.node, path, self.owner(owner, maker))
        age(path)
        return path

    async def after(self, seconds: float, reconciler: Reconciler | None = None) -> dict[str, str]:
        """Returns the results of a sweep at a later time, by the object's name."""
        self.clock += seconds
        return told(await (reconciler or self.reconciler).sweep())

    def left(self) -> set[str]:
        """Returns all existing objects except the image."""
        tasks = self.node.state_dir / "tasks"
        found = {entry.name for entry in (tasks.iterdir() if tasks.exists() else ())}
        return found | {word.split()[-1] for word in self.daemon.leftovers()}


def age(path: Path) -> None:
    then = path.stat().st_mtime - OLD_S
    os.utime(path, (then, then))


def told(results: list[SweepResult]) -> dict[str, str]:
    return {result.resource.name: str(result.outcome) for result in results}
