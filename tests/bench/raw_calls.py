"""A container started by the four calls that any driver needs: the measure of each start."""

from __future__ import annotations

import contextlib
import json
import time

from actors.model import identifiers
from containerd.api.client import Containerd
from containerd.api.records import ContainerRecord, Streams
from containerd.image.oci_image import LoadedImage
from containerd.spec import mounts
from containerd.spec.build import SpecInputs, build_spec
from containerd.spec.resources import Limits
from containerd.spec.users import ResolvedUser
from proto.errors import DriverError
from tests.bench.setting import SLEEPER
from tests.support.plugin.driver import Job


class RawTask:
    """One container of raw calls, with the mounts and the log FIFOs of a task of the driver.

    The logs go into the allocation's FIFOs, which need a reader before `start`.
    """

    def __init__(self, client: Containerd, job: Job) -> None:
        self._client = client
        self._job = job
        self._key = identifiers.snapshot_key(job.container)

    async def prepare(self) -> None:
        """Creates the lease, which protects the snapshot before the container exists."""
        await self._client.leases.create(self._job.container, expire_s=600, labels={})

    async def start(self, image: LoadedImage, reference: str, script: str = SLEEPER) -> float:
        """Prepares the snapshot, creates the container and its task, and starts the task.

        Returns:
            Seconds of the four calls.
        """
        client, container = self._client, self._job.container
        record = self._record(image, reference, script)
        begun = time.perf_counter()
        rootfs = await client.snapshots.prepare(
            record.snapshotter, self._key, image.chain_id, {}, container
        )
        await client.containers.create(record)
        await client.tasks.create(
            container,
            rootfs,
            Streams(
                stdout=self._job.config.stdout_path,
                stderr=self._job.config.stderr_path,
            ),
        )
        await client.tasks.start(container)
        return time.perf_counter() - begun

    def _record(self, image: LoadedImage, reference: str, script: str) -> ContainerRecord:
        config = self._job.config
        shared, own = self._job.alloc.path / "alloc", self._job.alloc.path / config.name
        document = build_spec(
            SpecInputs(
                image_config=image.config,
                command="/bin/sh",
                args=("-c", script),
                user=ResolvedUser(uid=0, gid=0),
                hostname="raw",
                cgroup_path=f"/{self._client.namespace}/{self._job.container}",
                limits=Limits(memory_bytes=64 << 20, cpu_shares=100),
                mounts=(
                    mounts.bind(str(shared), "/alloc"),
                    mounts.bind(str(shared / "logs"), "/alloc/logs", readonly=True),
                    mounts.bind(str(own / "local"), "/local"),
                    mounts.bind(str(own / "secrets"), "/secrets"),
                    mounts.bind("/etc/resolv.conf", "/etc/resolv.conf"),
                ),
            )
        )
        return ContainerRecord(
            id=self._job.container,
            labels={},
            image=reference,
            runtime="io.containerd.runc.v2",
            spec_json=json.dumps(document).encode(),
            snapshotter=self._client.default_snapshotter,
            snapshot_key=self._key,
        )

    async def end(self) -> None:
        """Kills the task if it runs, and removes all objects of the container."""
        client, container = self._client, self._job.container
        with contextlib.suppress(DriverError):  # the task has ended
            await client.tasks.kill(container, 9, everyone=True)
        await client.tasks.wait(container)
        await client.tasks.delete(container)
        await client.containers.delete(container)
        await client.snapshots.remove(client.default_snapshotter, self._key)
        await client.leases.delete(container)
        if self._job.readers:
            await self._job.logs_end()


async def spent(client: Containerd, image: LoadedImage, reference: str, job: Job) -> float:
    """Returns the seconds of a start by raw calls; the container is gone afterwards."""
    job.read_logs()
    task = RawTask(client, job)
    await task.prepare()
    seconds = await task.start(image, reference)
    await task.end()
    return seconds
