"""A running task of the Go driver after its plugin's end, built without the Go driver."""

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
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.daemons.shim_tasks import RealTask, import_image
from tests.support.plugin.driver import Job

_STARTED_AT_NS = 1_700_000_000_000_000_000
_YEAR_1_S = 62135596800


def go_handle(container: str, stdout: str, stderr: str, started_at_ns: int) -> bytes:
    """Encodes a handle as the Go driver does: its struct in msgpack's form from before 2013."""
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
    """A container as the Go driver creates it, and Nomad's handle of the task.

    The Go driver's plugin is gone: the FIFOs of the shim have no reader.

    Args:
        daemon: the containerd.
        chain_id: the chain id of the image in the namespace.
        job: the task in Nomad's terms.
        script: the script that the task runs.
        scope: name the objects as release 0.9.4 does on cgroup v2.
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
        """The pid of the task's first process."""
        return self._task.pid

    @property
    def stdout(self) -> Path:
        """The FIFO that the shim writes the task's output to."""
        return self._task.stdout

    @property
    def handle(self) -> Handle:
        """The handle in Nomad's state store."""
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
        """Creates the task; the plugin reads the FIFOs until the shim has opened both."""
        flags = os.O_RDONLY | os.O_NONBLOCK
        readers = [os.open(path, flags) for path in (self._task.stdout, self._task.stderr)]
        self._task.create()
        for reader in readers:
            os.close(reader)

    def start(self) -> None:
        """Creates and starts the task."""
        self.create()
        self._task.start()

    def leftovers(self) -> list[str]:
        """Lists the remains in containerd and on the disk."""
        left = self.daemon.leftovers()
        return left + [str(path) for path in (self.fifos, self.name_file) if path.exists()]

    def remove(self) -> None:
        """Removes the task and its files."""
        self._task.remove()
        shutil.rmtree(self.fifos, ignore_errors=True)


def go_namespace(daemon: ContainerdDaemon, *, scope: bool = False) -> ContainerdDaemon:
    """Returns the daemon as seen from the Go driver's namespace."""
    view = copy.copy(daemon)
    view.namespace = "nomad.slice" if scope else "nomad"
    return view


def go_image(daemon: ContainerdDaemon, directory: Path, *, scope: bool = False) -> str:
    """Imports an image with busybox and returns the image's chain id."""
    return import_image(go_namespace(daemon, scope=scope), directory)
