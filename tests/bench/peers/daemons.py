"""The daemons behind the peers' drivers: a dockerd and a podman service of the bench.

Both have directories of their own, no network, and a single image from a registry on loopback. The
machine's own docker and podman stay as they are.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from tests.support.daemons.daemon import Daemon
from tests.support.nomad.leftovers import end_all_with, unmount_below

_CONTAINERS_CONF = """\
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


class AbsentError(Exception):
    """A peer cannot be measured here; the text has the cause and the remedy."""


class PeerDaemon(Daemon):
    """A daemon of a `with` block, with the image; `address` is the daemon's socket.

    Args:
        image: the only image, in a registry on loopback without TLS.

    Raises:
        AbsentError: the program is not installed, or the daemon does not start.
    """

    package: ClassVar[str]
    pull: ClassVar[Sequence[str]] = ("pull",)

    def __init__(self, image: str) -> None:
        if shutil.which(self.program) is None:
            raise AbsentError(
                f"{self.program} is not installed: apt-get install --no-install-recommends"
                f" {self.package}"
            )
        # Short: sockets of the shims are below.
        super().__init__(Path(tempfile.mkdtemp(prefix="cd-p-", dir="/run")))
        self.image = image
        self.socket = self.base / "api.sock"
        self.address = f"unix://{self.socket}"

    def client(self, *words: str) -> Sequence[str]:
        """Returns a command of the daemon's client."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """Returns the environment of daemon and client."""
        return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.base)}

    def version(self) -> str:
        """Returns the version that the daemon's program prints."""
        words = subprocess.run(
            [self.program, "--version"], check=True, capture_output=True, text=True
        ).stdout.split()
        return words[2].rstrip(",")

    def enter(self) -> None:
        """Starts the daemon and pulls the image."""
        try:
            self.start()
            self._ask(*self.pull, self.image)
        except (AssertionError, OSError) as error:
            raise AbsentError(f"{self.program} does not start: {error}") from error

    def answers(self) -> bool:
        """See `Daemon.answers`."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def _ask(self, *words: str) -> None:
        done = subprocess.run(
            self.client(*words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env=self.environment(),
            timeout=self.start_s,
        )
        assert done.returncode == 0, f"{words[0]}: {done.stderr.strip()}"

    def close(self) -> None:
        """Ends the daemon and everything that the daemon has left."""
        self.stop()
        end_all_with(str(self.base))
        unmount_below(self.base)
        shutil.rmtree(self.base, ignore_errors=True)


class Dockerd(PeerDaemon):
    """Docker's daemon, which starts a containerd of its own."""

    program = "dockerd"
    package = "docker.io"

    def command(self) -> Sequence[str]:
        """See `Daemon.command`."""
        return [
            *("dockerd", "--data-root", f"{self.base}/root", "--exec-root", f"{self.base}/exec"),
            *("--pidfile", f"{self.base}/pid", "--host", self.address, "--bridge=none"),
            *("--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"),
        ]

    def client(self, *words: str) -> Sequence[str]:
        """See `Daemon.client`."""
        return ["docker", "--host", self.address, *words]


class PodmanService(PeerDaemon):
    """Podman's API service. The runtime is runc, as of the other drivers."""

    program = "podman"
    package = "podman"
    pull = ("pull", "--tls-verify=false")

    def command(self) -> Sequence[str]:
        """See `Daemon.command`."""
        (self.base / "containers.conf").write_text(_CONTAINERS_CONF)
        return self.client("system", "service", "--time=0", self.address)

    def client(self, *words: str) -> Sequence[str]:
        """See `Daemon.client`."""
        return ["podman", "--root", f"{self.base}/root", "--runroot", f"{self.base}/run", *words]

    def environment(self) -> Mapping[str, str]:
        """See `Daemon.environment`."""
        return {**super().environment(), "CONTAINERS_CONF": f"{self.base}/containers.conf"}
