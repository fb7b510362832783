"""What the Go driver leaves of a running task when its plugin goes, made without that driver."""

from __future__ import annotations

import copy
import os
import shutil
import struct
import tempfile
from pathlib import Path

import msgpack

from actors.lifecycle.go_takeover import FIFO_ROOT
from plugin.host.agent.conversions import task_message
from plugin.host.agent.session import Handle
from proto.nomad import driver_pb2
from tests.support.containerd_daemon import ContainerdDaemon
from tests.support.driver import Job
from tests.support.shim_tasks import RealTask, import_image

_STARTED_AT_NS = 1_700_000_000_000_000_000
_YEAR_1_S = 62135596800


def go_handle(container: str, stdout: str, stderr: str, started_at_ns: int) -> bytes:
    """The bytes that the Go driver hands to Nomad: its struct, in msgpack's form of before 2013."""
    seconds, nanoseconds = divmod(started_at_ns, 10**9)
    packed = msgpack.packb(
        {
            "ContainerName": container,
            "StartedAt": struct.pack(">bqih", 1, seconds + _YEAR_1_S, nanoseconds, 0),
            "StderrPath": stderr,
            "StdoutPath": stdout,
        },
        use_bin_type=False,
    )
    assert isinstance(packed, bytes)
    return packed


class GoTask:
    """A container as the Go driver makes it, and the handle that Nomad has of it.

    Its plugin has gone: nobody reads its shim's FIFOs.

    Args:
        daemon: the containerd.
        chain_id: of the image in the namespace.
        job: the task in Nomad's terms.
        script: what the task runs.
        scope: as release 0.9.4 does it on cgroup v2.
    """

    def __init__(
        self,
        daemon: ContainerdDaemon,
        chain_id: str,
        job: Job,
        script: str,
        *,
        scope: bool = False,
    ) -> None:
        config = job.config
        v1, v2 = f"{config.name}-{config.alloc_id}", f"{config.alloc_id}.{config.name}.scope"
        self.container = v2 if scope else v1
        self.daemon = go_namespace(daemon, scope=scope)
        self.job = job
        self.name_file = Path(config.alloc_dir, config.name, "local", "etc_hosts")
        self.name_file.write_text("127.0.0.1\tlocalhost\n")
        FIFO_ROOT.mkdir(parents=True, exist_ok=True)
        self.fifos = Path(tempfile.mkdtemp(dir=FIFO_ROOT))
        self._task = RealTask(self.daemon, chain_id, self.container, script, self.fifos)
        self._task.stdout = self._task.stdout.rename(self.fifos / f"{self.container}-stdout")
        self._task.stderr = self._task.stderr.rename(self.fifos / f"{self.container}-stderr")

    @property
    def pid(self) -> int:
        """Of the task's first process."""
        return self._task.pid

    @property
    def stdout(self) -> Path:
        """The FIFO that the shim writes the task's output to."""
        return self._task.stdout

    @property
    def handle(self) -> Handle:
        """What Nomad keeps."""
        config = self.job.config
        message = driver_pb2.TaskHandle(
            version=1,
            config=task_message(config, b""),
            driver_state=go_handle(
                self.container, config.stdout_path, config.stderr_path, _STARTED_AT_NS
            ),
        )
        return Handle(task_id=config.id, encoded=message.SerializeToString())

    def create(self) -> None:
        """Made, not started. Its plugin reads the FIFOs until the shim has opened them."""
        flags = os.O_RDONLY | os.O_NONBLOCK
        readers = [os.open(path, flags) for path in (self._task.stdout, self._task.stderr)]
        self._task.create()
        for reader in readers:
            os.close(reader)

    def start(self) -> None:
        """Made and started."""
        self.create()
        self._task.start()

    def leftovers(self) -> list[str]:
        """What is left in containerd and on the disk."""
        left = self.daemon.leftovers()
        return left + [str(path) for path in (self.fifos, self.name_file) if path.exists()]

    def remove(self) -> None:
        """Ends all of it."""
        self._task.remove()
        shutil.rmtree(self.fifos, ignore_errors=True)


def go_namespace(daemon: ContainerdDaemon, *, scope: bool = False) -> ContainerdDaemon:
    """The daemon, looked at in the Go driver's namespace."""
    view = copy.copy(daemon)
    view.namespace = "nomad.slice" if scope else "nomad"
    return view


def go_image(daemon: ContainerdDaemon, directory: Path, *, scope: bool = False) -> str:
    """Puts an image with busybox there; returns its chain id."""
    return import_image(go_namespace(daemon, scope=scope), directory)
