"""`./dev vectors`: records the frames of this release's processes, for tests of later releases.

A gateway of the product runs on a real launcher, real workers and a fake containerd; the tape
records every frame between these processes. The frames of a release are recorded once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgpack

from actors.actor_gateway import ActorGateway
from actors.model.nomad import StartedTask
from actors.model.settings import TaskOptions
from actors.processes import launcher_link, worker_link
from actors.processes.worker_link import WorkerLink, connect, connect_unix
from proto import frames
from proto.errors import DriverError
from proto.frames import Frame
from proto.release import RELEASE
from tests.support.fakes.containerd import FakeContainerd
from tests.support.fakes.vectors import DIRECTORY, DISK, FRAMES
from tests.support.plugin.driver import Driver, Job
from tests.support.plugin.gateways import configured
from tests.support.waiting import until
from tests.support.workers.peers import LauncherProcess
from workers import protocol

IMAGE = "127.0.0.1:9/vectors:1"
Entry = dict[str, Any]


class Tape:
    """All frames, by direction and name: the first of each name. `scene` is part of the name."""

    def __init__(self) -> None:
        self.scene = ""
        self.ways: dict[str, dict[str, Entry]] = {}
        self._writers: list[asyncio.StreamWriter] = []

    def note(self, way: str, name: str, frame: Frame) -> None:
        """Keeps a frame."""
        data = frames.encode(frame)
        entry = {"reads": frame, "hex": data.hex()}
        self.ways.setdefault(way, {}).setdefault(f"{name}, {self.scene}", entry)

    async def connect(self, path: Path) -> tuple[Any, Any]:
        """Replaces `connect_unix`."""
        reader, writer = await connect_unix(path)
        self._writers.append(writer)
        tap = _Tap(self, path.name == protocol.LAUNCHER_SOCKET)
        return _Reader(reader, tap), _Writer(writer, tap)

    async def until(self, way: str, name: str) -> None:
        """Waits for a frame of the present scene."""
        await until(lambda: f"{name}, {self.scene}" in self.ways.get(way, {}), 20)

    async def close(self) -> None:
        """Ends the connections left open by gateways until the end of their process."""
        for writer in self._writers:
            writer.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)


class _Tap:
    """A connection: the launcher's until `ready`, then the worker's."""

    def __init__(self, tape: Tape, launcher: bool) -> None:
        self._tape = tape
        self._peer = "launcher" if launcher else "worker"
        self._asked: dict[object, str] = {}
        self._sent, self._got = frames.Decoder(), frames.Decoder()

    def sent(self, data: bytes) -> None:
        for frame in self._sent.feed(data):
            self._asked[frame.get("id")] = str(frame["op"])
            self._tape.note(f"plugin to {self._peer}", str(frame["op"]), frame)

    def got(self, data: bytes) -> None:
        for frame in self._got.feed(data):
            name = frame.get("event")
            if name in {None, protocol.FAILED}:
                word = "answer to" if frame.get("ok") else "refusal of"
                name = f"{word} {self._asked.get(frame.get('re'))}"
            if name == protocol.READY:
                self._peer = "worker"
            self._tape.note(f"{self._peer} to plugin", str(name), frame)


class _Reader:
    def __init__(self, reader: asyncio.StreamReader, tap: _Tap) -> None:
        self._reader, self._tap = reader, tap

    async def read(self, count: int) -> bytes:
        data = await self._reader.read(count)
        self._tap.got(data)
        return data


class _Writer:
    def __init__(self, writer: asyncio.StreamWriter, tap: _Tap) -> None:
        self._writer, self._tap = writer, tap
        self.close, self.wait_closed = writer.close, writer.wait_closed

    def write(self, data: bytes) -> None:
        self._tap.sent(data)
        self._writer.write(data)


class Recorder:
    """The scenes: a task with an end of its own, a task without its shim, and refused requests."""

    def __init__(self, launcher: LauncherProcess, containerd: FakeContainerd, place: Path) -> None:
        self.tape = Tape()
        self.disk: dict[str, Entry] = {}
        self._launcher = launcher
        self._containerd = containerd
        self._driver = Driver(containerd, place)

    async def run(self) -> None:
        """Plays all scenes, in order."""
        await self._life()
        await self._loss()
        await self._refusals()
        await self.tape.close()

    def _gateway(self) -> contextlib.AbstractAsyncContextManager[ActorGateway]:
        return configured(self._containerd, self._launcher.state_dir)

    async def _start(self, gateway: ActorGateway) -> tuple[Job, StartedTask]:
        job = self._driver.task()
        job.read_logs()
        options = TaskOptions(
            image=IMAGE, image_pull_policy="never", command="/bin/sleep", args=("600",)
        )
        return job, await gateway.start_task(job.config, options)

    def _directory(self, job: Job) -> Path:
        return self._launcher.state_dir / "tasks" / job.container

    async def _life(self) -> None:
        self.tape.scene = "while a task starts"
        async with self._gateway() as gateway:
            await anext(gateway.fingerprints())
            job, started = await self._start(gateway)
            self.tape.scene = "while a task runs"
            await anext(gateway.task_stats(job.id, 1.0))
        async with self._gateway() as gateway:
            await gateway.recover_task(job.config, started.handle_version, started.driver_state)
            self._keep("handle", started.driver_state)
            self._keep_text("lock", (self._directory(job) / protocol.WORKER_LOCK).read_bytes())
            await gateway.signal_task(job.id, "SIGTERM")
            await gateway.wait_task(job.id)
            await self.tape.until("worker to plugin", "drained")
        self.tape.scene = "after a task's end"
        async with self._gateway() as gateway:
            await gateway.recover_task(job.config, started.handle_version, started.driver_state)
            self._keep("exit", (self._directory(job) / protocol.EXIT_RECORD).read_bytes())
            await gateway.destroy_task(job.id, force=True)

    async def _loss(self) -> None:
        self.tape.scene = "while another task starts"
        async with self._gateway() as gateway:
            job, _ = await self._start(gateway)
            self.tape.scene = "without a shim"
            self._containerd.tasks.tasks[job.container].shim.kill_shim()
            await gateway.wait_task(job.id)
            record = (self._directory(job) / protocol.EXIT_RECORD).read_bytes()
            self._keep("exit without a shim", record)
            await self.tape.until("worker to plugin", "drained")
            await gateway.destroy_task(job.id, force=True)

    async def _refusals(self) -> None:
        self.tape.scene = "refused"
        launcher = launcher_link.LauncherLink(self._launcher.state_dir)
        directory = self._launcher.task_dir("refused")
        spec = protocol.WorkerSpec(name="refused", dir=str(directory))
        link = await launcher.fork(spec)
        with contextlib.suppress(DriverError):
            await launcher.fork(spec)
        other = await connect(directory)
        nowhere = protocol.ShimTarget(
            address="unix:///none", api=2, namespace="n", container_id="c"
        )
        for op, fields in (
            (protocol.KILL, {"signal": 15, "all": False}),
            (protocol.STATS, {"interval_ms": 1000}),
            (protocol.WATCH, nowhere.to_wire()),
            ("no-such-request", {}),
        ):
            await _ask(other, op, fields)
        await other.close()
        self.tape.scene = "at a worker's end"
        await _ask(link, protocol.END, {})
        await link.close()
        self.tape.scene = "refused"
        await self._ask_launcher({"op": "no-such-request", "v": protocol.VERSION})
        await self._ask_launcher({"op": protocol.HELLO, "v": 1000})
        self.tape.scene = "at a launcher's end"
        await self._ask_launcher({"op": protocol.RETIRE, "v": protocol.VERSION})

    async def _ask_launcher(self, request: Frame) -> None:
        reader, writer = await self.tape.connect(
            self._launcher.state_dir / protocol.LAUNCHER_SOCKET
        )
        writer.write(frames.encode(request))
        await reader.read(4096)
        writer.close()

    def _keep(self, name: str, data: bytes) -> None:
        self.disk[name] = {"reads": msgpack.unpackb(data, raw=False), "hex": data.hex()}

    def _keep_text(self, name: str, data: bytes) -> None:
        self.disk[name] = {"reads": data.decode(), "hex": data.hex()}


async def _ask(link: WorkerLink, op: str, fields: Mapping[str, Any]) -> None:
    with contextlib.suppress(DriverError):
        await link.request(op, **fields)


def record() -> tuple[Tape, dict[str, Entry]]:
    """Returns the frames of the release's processes, and the files on disk."""
    with (
        LauncherProcess() as launcher,
        FakeContainerd() as containerd,
        tempfile.TemporaryDirectory() as place,
    ):
        containerd.add_image(IMAGE)
        recorder = Recorder(launcher, containerd, Path(place))
        tap = recorder.tape.connect
        with (
            patch.object(worker_link, "connect_unix", tap),
            patch.object(launcher_link, "connect_unix", tap),
        ):
            asyncio.run(recorder.run())
        return recorder.tape, recorder.disk


def main() -> int:
    """Records the release, unless the record exists."""
    target = DIRECTORY / RELEASE
    if target.exists():
        sys.stderr.write(
            f"release {RELEASE} is recorded in {target}, and its frames are for ever\n"
        )
        return 1
    tape, disk = record()
    target.mkdir(parents=True)
    for name, content in ((FRAMES, tape.ways), (DISK, disk)):
        (target / name).write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
