"""Tests of the orphan sweep under a whole agent: tasks survive restarts, orphans do not."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.model import identifiers
from actors.model.ownership import (
    LABEL_ALLOC_ID,
    LABEL_MAKER,
    LABEL_OWNER,
    LABEL_TASK_ID,
    LABEL_TASK_NAME,
)
from containerd.api.client import Containerd
from containerd.api.records import ContainerRecord, Streams
from tests.nomad.conftest import built, started_agent
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.nomad.api import DEAF, make_job
from tests.support.nomad.nomad_agent import NomadAgent
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.nomad, pytest.mark.containerd]

SOON = 'gc { dangling_containers { period = "500ms" creation_grace = "1s" } }'
CGROUP_V2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
DEADLINE_S = 60.0


@pytest.fixture
def agent(containerd: ContainerdDaemon) -> Iterator[NomadAgent]:
    """Yields an agent whose plugin sweeps twice a second."""
    with started_agent(built("agent"), containerd, SOON) as running:
        yield running


async def forgotten(containerd: ContainerdDaemon, like: str) -> str:
    """Copies a running container for a task that Nomad does not know."""
    client = Containerd(containerd.address, containerd.namespace)
    try:
        record = await client.containers.get(like)
        assert record is not None
        alloc, name = str(uuid.uuid4()), record.labels[LABEL_TASK_NAME]
        made = identifiers.container_id(alloc, name, cgroup_v2=CGROUP_V2)
        labels = {
            **record.labels,
            LABEL_ALLOC_ID: alloc,
            LABEL_TASK_ID: f"{alloc}/{name}/0000",
            LABEL_MAKER: "plugin-that-is-gone",
        }
        lease = identifiers.lease_id(made)
        await client.leases.create(lease, expire_s=3600, labels=labels)
        spec = json.loads(record.spec_json.replace(like.encode(), made.encode()))
        # The lease is held for the start alone.
        spec["mounts"] = [one for one in spec["mounts"] if "/mounts/" not in one["source"]]
        key = identifiers.snapshot_key(made)
        parent = await _parent(containerd, record.snapshot_key)
        mounts = await client.snapshots.prepare(record.snapshotter, key, parent, labels, lease)
        clone = ContainerRecord(
            id=made,
            labels=labels,
            image=record.image,
            runtime=record.runtime,
            spec_json=json.dumps(spec).encode(),
            snapshotter=record.snapshotter,
            snapshot_key=key,
        )
        await client.containers.create(clone)
        await client.tasks.create(made, mounts, Streams())
        await client.tasks.start(made)
        return made
    finally:
        await client.close()


async def _parent(containerd: ContainerdDaemon, key: str) -> str:
    lines = (await asyncio.to_thread(containerd.ctr, "snapshots", "list")).splitlines()
    return next(line.split()[1] for line in lines if line.split()[0] == key)


async def test_what_nomad_forgot_goes_and_what_it_knows_lives_through_its_deaths(
    agent: NomadAgent, containerd: ContainerdDaemon, busybox_image: str
) -> None:
    nomad = agent.api
    command = {"image": busybox_image, "command": "sh", "args": ["-c", "echo up; sleep 600"]}
    alloc = nomad.start(make_job("kept", command, **DEAF))
    nomad.wait_log(alloc, "up")
    (kept,) = containerd.ctr("containers", "list", "-q").split()
    pid = task_pid(containerd, kept)

    client = Containerd(containerd.address, containerd.namespace)
    record = await client.containers.get(kept)
    await client.close()
    assert record is not None
    node = nomad.node()
    assert node is not None
    # Nomad 1.4 tells a driver no node.
    assert record.labels[LABEL_OWNER] in {node["ID"], str(agent.alloc_root)}

    for victims in ("none", "agent", "plugin", "agent and plugin"):
        plugins = agent.plugin_pids()
        if "agent" in victims:
            agent.kill()
        if "plugin" in victims:
            for plugin in plugins:
                os.kill(plugin, signal.SIGKILL)
        lost = await forgotten(containerd, kept)
        if "agent" in victims:
            agent.start()
        wait_removed(containerd, lost, agent, victims)
        assert task_pid(containerd, kept) == pid, victims
    nomad.stop_and_wait("kept")
    assert containerd.leftovers() == []


def wait_removed(containerd: ContainerdDaemon, lost: str, agent: NomadAgent, victims: str) -> None:
    wait_until(
        lambda: lost not in " ".join(containerd.leftovers()),
        DEADLINE_S,
        lambda: f"{victims}: {containerd.leftovers()}\n{agent.tail()}",
    )


def task_pid(containerd: ContainerdDaemon, container: str) -> str:
    lines = containerd.ctr("tasks", "list").splitlines()
    return next((line.split()[1] for line in lines if line.split()[0] == container), "")
