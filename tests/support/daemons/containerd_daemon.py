"""A real containerd for tests, with a root, a state directory and a socket of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from containerd.api.client import Containerd
from tests.support.daemons.containerd_metadata import Metadata
from tests.support.daemons.containerd_versions import bin_dir, program
from tests.support.daemons.daemon import Daemon
from tests.support.waiting import slowed

T = TypeVar("T")
CONFIG = """\
version = 2
root = "{base}/root"
state = "{base}/state"
disabled_plugins = [{disabled}]
[grpc]
  address = "{base}/containerd.sock"
[debug]
  level = "info"
"""
DISABLED = (
    "io.containerd.grpc.v1.cri",
    "io.containerd.cri.v1.images",
    "io.containerd.cri.v1.runtime",
    *(f"io.containerd.snapshotter.v1.{name}" for name in ("btrfs", "zfs", "devmapper", "aufs")),
)


class ContainerdDaemon(Daemon):
    """A containerd of a `with` block: `.address` is the socket, `.log` the log file."""

    program = "containerd"
    start_s = 30
    namespace = "nomad-test"
    parent = "/run"

    def __init__(self, path: str = "") -> None:
        """Prepares a daemon; `path` comes first in its search for shims and runtimes."""
        # Short: the shims' and FIFOs' paths below it must stay under 108 bytes.
        super().__init__(Path(tempfile.mkdtemp(prefix="cd-", dir=self.parent)), "containerd.log")
        self.address = str(self.base / "containerd.sock")
        self._first_in_path = path
        self._config = CONFIG
        self._disabled = [*DISABLED]
        self.use(bin_dir())

    def use(self, folder: Path | None) -> None:
        """Sets the folder of containerd for the next start; None means the machine's own."""
        self.binary = program("containerd", folder) or "containerd"
        self._ctr = program("ctr", folder) or "ctr"
        places = (self._first_in_path, str(folder or ""), os.environ["PATH"])
        self._path = ":".join(filter(None, places))

    def configure(self, text: str, plugin: str = "") -> None:
        """Adds configuration for the next start.

        Args:
            text: `{base}` is the daemon's directory.
            plugin: a plugin of `DISABLED` that the daemon shall have.
        """
        self._config += text
        if plugin:
            self._disabled.remove(plugin)

    def command(self) -> Sequence[str]:
        """Writes the configuration, and returns the command of the daemon."""
        config = self.base / "config.toml"
        disabled = ", ".join(f'"{plugin}"' for plugin in self._disabled)
        config.write_text(self._config.format(base=self.base, disabled=disabled))
        return [self.binary, "--config", str(config)]

    def environment(self) -> Mapping[str, str]:
        """See `Daemon.environment`."""
        return {**os.environ, "PATH": self._path}

    def answers(self) -> bool:
        """See `Daemon.answers`."""
        return Path(self.address).exists() and "Server:" in self.ctr("version", check=False)

    @property
    def version(self) -> str:
        """The version that the daemon's program prints, such as 1.6.20."""
        said = subprocess.run([self.binary, "--version"], check=True, capture_output=True)
        return said.stdout.decode().split()[2]

    def ctr(self, *arguments: str, check: bool = True) -> str:
        """Runs `ctr` in the tests' namespace and returns its output."""
        done = subprocess.run(
            [self._ctr, "-a", self.address, "-n", self.namespace, *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=slowed(60),
        )
        if check and done.returncode:
            raise AssertionError(f"ctr {arguments}: {done.stdout}{done.stderr}")
        return done.stdout

    def ask(
        self, work: Callable[[Containerd], Awaitable[T]], runner: asyncio.Runner | None = None
    ) -> T:
        """Runs a coroutine with a client of the daemon and returns its result.

        Args:
            work: makes the coroutine.
            runner: an event loop that stays; None is a new loop.
        """

        async def asked() -> T:
            client = Containerd(self.address, self.namespace)
            try:
                return await work(client)
            finally:
                await client.close()

        return runner.run(asked()) if runner else asyncio.run(asked())

    def leftovers(self) -> list[str]:
        """Lists all objects in the tests' namespace except images."""
        with self._metadata() as metadata:
            return [
                *(f"container {name}" for name in metadata.containers()),
                *(f"task {name}" for name in metadata.tasks()),
                *(f"lease {name}" for name in metadata.leases()),
                *(f"snapshot {name}" for name in metadata.snapshots()),
            ]

    def remove_all(self) -> None:
        """Removes the objects of a failed test."""
        with self._metadata() as metadata:
            for task in metadata.tasks():
                self.ctr("tasks", "delete", "--force", task, check=False)
            for container in metadata.containers():
                self.ctr("containers", "delete", container, check=False)
            for lease in metadata.leases():
                self.ctr("leases", "delete", lease, check=False)
            for snapshot in metadata.snapshots():
                self.ctr("snapshots", "rm", snapshot, check=False)

    def _metadata(self) -> Metadata:
        bundles = self.base / "state/io.containerd.runtime.v2.task" / self.namespace
        return Metadata(self.address, self.namespace, bundles)

    def down(self) -> None:
        """Kills the daemon; `start` starts a new process."""
        self.kill()

    def close(self) -> None:
        """Ends shims that tests left, then the daemon, and removes the files."""
        for pid in self.shim_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.kill(signal.SIGTERM)
        for line in Path("/proc/mounts").read_text().splitlines()[::-1]:
            target = line.split()[1]
            if target.startswith(f"{self.base}/"):
                subprocess.run(["umount", "-l", target], check=False)
        shutil.rmtree(self.base, ignore_errors=True)

    def shim_pids(self) -> list[int]:
        """Lists the pids of the daemon's shims."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if b"containerd-shim" in words[0] and self.address.encode() in words:
                    found.append(int(entry.name))
        return found
