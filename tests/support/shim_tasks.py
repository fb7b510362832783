"""Tasks of a real containerd and its runc shim, made without the driver: what a worker watches."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import signal
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from containerd.client import Containerd
from containerd.records import ContainerRecord
from workers.wire import ShimTarget

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support.containerd_daemon import ContainerdDaemon

T = TypeVar("T")
IMAGE = "127.0.0.1:1/shim-tasks:1"
_APPLETS = ("sh", "sleep", "echo", "cat", "dd", "head", "tail", "yes", "true", "kill")
_OCI = "application/vnd.oci.image"


def import_image(daemon: ContainerdDaemon, directory: Path) -> str:
    """Puts a one-layer busybox image into containerd; returns its layer's chain id."""
    layer = _layer()
    blobs: dict[str, bytes] = {}

    def put(kind: str, data: bytes) -> dict[str, object]:
        name = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{name}"] = data
        return {"mediaType": f"{_OCI}.{kind}", "digest": f"sha256:{name}", "size": len(data)}

    entry = put("layer.v1.tar", layer)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [entry["digest"]]},
    }
    manifest = put(
        "manifest.v1+json",
        json.dumps(
            {
                "schemaVersion": 2,
                "config": put("config.v1+json", json.dumps(config).encode()),
                "layers": [entry],
            }
        ).encode(),
    )
    manifest["annotations"] = {"io.containerd.image.name": IMAGE}
    blobs["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    blobs["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode()
    archive = directory / "image.tar"
    with tarfile.open(archive, "w") as tar:
        for name, data in blobs.items():
            _add(tar, name, data)
    daemon.ctr("image", "import", str(archive))
    return str(entry["digest"])


class RealTask:
    """One container with a script as its first process, its output in two FIFOs."""

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

    def create(self, memory_bytes: int = 0) -> ShimTarget:
        """Has the task created, not started; a reader of both FIFOs must be there."""
        return self._run(lambda client: self._create(client, memory_bytes))

    def start(self) -> None:
        """Runs the script."""
        self._run(lambda client: client.start_task(self.name))

    def kill_shim(self) -> None:
        """SIGKILL to this task's shim."""
        stat = Path(f"/proc/{self.pid}/stat").read_text()
        _kill(int(stat.rpartition(")")[2].split()[1]))

    def remove(self) -> None:
        """Ends and deletes task, container and snapshot; what is gone already is fine."""
        self._daemon.ctr("task", "rm", "-f", self.name, check=False)
        self._daemon.ctr("container", "rm", self.name, check=False)
        self._daemon.ctr("snapshot", "rm", f"{self.name}-snapshot", check=False)

    async def _create(self, client: Containerd, memory_bytes: int) -> ShimTarget:
        snapshotter = client.default_snapshotter
        key = f"{self.name}-snapshot"
        await client.create_lease(self.name, expire_s=600, labels={})
        mounts = await client.prepare_snapshot(snapshotter, key, self._chain_id, {}, self.name)
        await client.create_container(
            ContainerRecord(
                id=self.name,
                labels={},
                image=IMAGE,
                runtime="io.containerd.runc.v2",
                spec_json=json.dumps(self._spec(memory_bytes)).encode(),
                snapshotter=snapshotter,
                snapshot_key=key,
            ),
            self.name,
        )
        self.pid = await client.create_task(
            self.name,
            mounts,
            stdin="",
            stdout=str(self.stdout),
            stderr=str(self.stderr),
            terminal=False,
        )
        shim = await client.shim(self.name, self.pid)
        await client.delete_lease(self.name)
        assert shim is not None
        return ShimTarget(
            address=shim.address,
            api=shim.api,
            namespace=client.namespace,
            container_id=self.name,
        )

    def _spec(self, memory_bytes: int) -> dict[str, object]:
        spec: dict[str, object] = json.loads(self._daemon.ctr("oci", "spec"))
        process, linux = spec["process"], spec["linux"]
        assert isinstance(process, dict)
        assert isinstance(linux, dict)
        process.update(args=["/bin/sh", "-c", self._script], env=["PATH=/bin"], terminal=False)
        linux["cgroupsPath"] = f"/{self._daemon.namespace}/{self.name}"
        if memory_bytes:
            linux["resources"]["memory"] = {"limit": memory_bytes}
        return spec

    def _run(self, ask: Callable[[Containerd], Awaitable[T]]) -> T:
        async def go() -> T:
            client = Containerd(self._daemon.address, self._daemon.namespace)
            try:
                return await ask(client)
            finally:
                await client.close()

        return asyncio.run(go())


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _layer() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for directory, mode in (("bin", 0o755), ("tmp", 0o1777), ("proc", 0o755), ("dev", 0o755)):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        _add(tar, "bin/busybox", Path("/bin/busybox").read_bytes(), 0o755)
        for applet in _APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))
