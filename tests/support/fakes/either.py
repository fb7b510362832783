"""A real or a fake containerd, and a corner of the containerd for a test."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from containerd.api.client import Containerd
from containerd.api.records import ContainerRecord, Mount, Status, Streams
from proto.errors import Code, DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.daemons.shim_tasks import IMAGE
from tests.support.fakes.containerd import FakeContainerd
from tests.support.waiting import slowed

Daemon = FakeContainerd | ContainerdDaemon
SNAPSHOTTER = "overlayfs"


class Place:
    """A test's own corner of the daemon: ids begin with the corner's name."""

    def __init__(self, daemon: Daemon, chain: str, logs: Path) -> None:
        self.client = Containerd(daemon.address, daemon.namespace)
        self.chain = chain
        self.logs = logs
        self._daemon = daemon

    def spec(self, script: str) -> bytes:
        """Builds an OCI spec that runs a script."""
        args = ["/bin/sh", "-c", script]
        if isinstance(self._daemon, FakeContainerd):
            return json.dumps({"process": {"args": args}}).encode()
        spec = json.loads(self._daemon.ctr("oci", "spec"))
        spec["process"].update(args=args, env=["PATH=/bin"], terminal=False)
        spec["linux"]["cgroupsPath"] = f"/{self._daemon.namespace}/contract"
        return json.dumps(spec).encode()

    def record(self, id: str = "c", script: str = "true", **fields: Any) -> ContainerRecord:
        """Builds the record of a container of the image."""
        return ContainerRecord(
            **{
                "id": id,
                "labels": {"kind": id},
                "image": IMAGE,
                "runtime": "io.containerd.runc.v2",
                "spec_json": self.spec(script),
                "snapshotter": SNAPSHOTTER,
                "snapshot_key": f"{id}-snapshot",
                **fields,
            }
        )

    async def container(self, id: str = "c", script: str = "true") -> tuple[Mount, ...]:
        """Creates a container with a snapshot, held by a lease as in a start."""
        await self.client.leases.create(f"{id}-lease", expire_s=600, labels={})
        mounts = await self.client.snapshots.prepare(
            SNAPSHOTTER, f"{id}-snapshot", self.chain, {}, f"{id}-lease"
        )
        await self.client.containers.create(self.record(id, script))
        return mounts

    async def task(self, script: str, id: str = "c", stdout: str = "", stderr: str = "") -> int:
        """Creates a task and returns the pid."""
        mounts = await self.container(id, script)
        return await self.client.tasks.create(id, mounts, Streams(stdout=stdout, stderr=stderr))

    async def end(self, id: str = "c") -> None:
        """Kills and deletes a task."""
        await self.client.tasks.kill(id, signal.SIGKILL, everyone=True)
        await until_stopped(self.client, id)
        await self.client.tasks.delete(id)


async def until_stopped(client: Containerd, id: str) -> None:
    async with asyncio.timeout(slowed(10)):
        while (record := await client.tasks.get(id)) and record.status is not Status.STOPPED:
            await asyncio.sleep(0.01)


async def refused(call: Awaitable[object], code: Code) -> DriverError:
    """Expects a call to be refused with the code, and yields the error."""
    with pytest.raises(DriverError) as failed:
        await call
    assert failed.value.code is code, failed.value
    assert failed.value.brief.startswith("containerd cannot ")
    return failed.value
