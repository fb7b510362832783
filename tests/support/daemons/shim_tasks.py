"""Tasks of a real containerd and runc's shim, created without the driver, for workers to watch."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import tarfile
from pathlib import Path
from typing import Any

from containerd.api.client import Containerd
from containerd.api.records import ContainerRecord, Streams
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.registries import images
from workers.protocol import ShimTarget

IMAGE = "127.0.0.1:1/shim-tasks:1"


def import_image(daemon: ContainerdDaemon, directory: Path) -> str:
    """Imports a one-layer busybox image into containerd; returns the layer's chain id."""
    layer = images.busybox_layer()
    image = images.build([layer])
    entry = {
        "mediaType": image.media_type,
        "digest": image.digest,
        "size": len(image.body),
        "annotations": {"io.containerd.image.name": IMAGE},
    }
    files = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(),
    }
    for digest, body in {**image.blobs, image.digest: image.body}.items():
        files[f"blobs/{digest.replace(':', '/')}"] = body
    archive = directory / "image.tar"
    with tarfile.open(archive, "w") as tar:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    daemon.ctr("image", "import", str(archive))
    return images.digest_of(layer)


class RealTask:
    """One container with a script as the first process, and two FIFOs for the output.

    `create` needs a reader, or a keeper, on both FIFOs.
    """

    def __init__(
        self, daemon: ContainerdDaemon, chain_id: str, name: str, script: str, logs: Path
    ) -> None:
        self.name = name
        self.stdout = logs / f"{name}.stdout.fifo"
        self.stderr = logs / f"{name}.stderr.fifo"
        self.pid = 0
        self._daemon = daemon
        self._chain_id = chain_id
        self._script = script
        os.mkfifo(self.stdout, 0o600)
        os.mkfifo(self.stderr, 0o600)

    def create(self, memory_bytes: int = 0) -> ShimTarget:
        """Creates the task without a start."""
        return self._daemon.ask(lambda client: self._create(client, memory_bytes))

    def start(self) -> None:
        """Runs the script."""
        self._daemon.ask(lambda client: client.tasks.start(self.name))

    def kill_shim(self) -> None:
        """Sends SIGKILL to the shim of the task."""
        stat = Path(f"/proc/{self.pid}/stat").read_text()
        os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)

    def remove(self) -> None:
        """Ends and deletes task, container and snapshot; absent objects are no error."""
        self._daemon.ctr("task", "rm", "-f", self.name, check=False)
        self._daemon.ctr("container", "rm", self.name, check=False)
        self._daemon.ctr("snapshot", "rm", f"{self.name}-snapshot", check=False)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # What a shim that was killed together with containerd left running.
            if self.pid and self.name in Path(f"/proc/{self.pid}/cgroup").read_text():
                os.kill(self.pid, signal.SIGKILL)

    async def _create(self, client: Containerd, memory_bytes: int) -> ShimTarget:
        snapshotter = client.default_snapshotter
        key = f"{self.name}-snapshot"
        await client.leases.create(self.name, expire_s=600, labels={})
        mounts = await client.snapshots.prepare(snapshotter, key, self._chain_id, {}, self.name)
        record = ContainerRecord(
            id=self.name,
            labels={},
            image=IMAGE,
            runtime="io.containerd.runc.v2",
            spec_json=json.dumps(self._spec(memory_bytes)).encode(),
            snapshotter=snapshotter,
            snapshot_key=key,
        )
        await client.containers.create(record)
        self.pid = await client.tasks.create(
            self.name,
            mounts,
            Streams(stdout=str(self.stdout), stderr=str(self.stderr)),
        )
        shim = await client.shim(self.name, self.pid)
        await client.leases.delete(self.name)
        assert shim is not None
        return ShimTarget(
            address=shim.address,
            api=shim.api,
            namespace=client.namespace,
            container_id=self.name,
        )

    def _spec(self, memory_bytes: int) -> dict[str, Any]:
        spec: dict[str, Any] = json.loads(self._daemon.ctr("oci", "spec"))
        spec["process"].update(
            args=["/bin/sh", "-c", self._script], env=["PATH=/bin"], terminal=False
        )
        spec["linux"]["cgroupsPath"] = f"/{self._daemon.namespace}/{self.name}"
        if memory_bytes:
            spec["linux"]["resources"]["memory"] = {"limit": memory_bytes}
        return spec
