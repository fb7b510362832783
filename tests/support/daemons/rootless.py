"""A containerd of an unprivileged user: rootlesskit's namespaces, in the layout of nerdctl."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from containerd import daemon_process
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.needs import missing, need_containerd
from tests.support.waiting import wait_until
from tests.support.workers.peers import has_ended

_FIRST_ID, _IDS = 1 << 30, 65536
_SUBORDINATE = (Path("/etc/subuid"), Path("/etc/subgid"))
# Runs inside rootlesskit's namespaces, as root of them. The directories that --copy-up has replaced
# have links to those of the machine.
_CHILD = """\
set -e
rm -f /run/containerd /var/lib/containerd
mkdir -p "$XDG_RUNTIME_DIR/containerd" "$HOME/data" /run/containerd /var/lib/containerd
mount --bind "$XDG_RUNTIME_DIR/containerd" /run/containerd
mount --bind "$HOME/data" /var/lib/containerd
[ -z "$3" ] || exec unshare --net sh -c 'ip link set lo up; exec "$0" --config "$1"' "$1" "$2"
exec "$1" --config "$2"
"""
_CONFIG = """\
version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images",
  "io.containerd.cri.v1.runtime", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = "{base}/run/containerd/containerd.sock"
"""


def need_rootless() -> None:
    """Requires rootlesskit and newuidmap, and user namespaces."""
    need_containerd()
    for program, package in (("rootlesskit", "rootlesskit"), ("newuidmap", "uidmap")):
        if shutil.which(program) is None:
            missing("containerd", f"{program} is not installed (apt-get install {package})")
    most = Path("/proc/sys/user/max_user_namespaces")
    if most.exists() and not int(most.read_text()):
        missing("containerd", "user.max_user_namespaces is 0")


class User:
    """A user of a `with` block, with a range of subordinate ids."""

    def __init__(self) -> None:
        self.name = f"cdtest{uuid.uuid4().hex[:8]}"
        self.uid = self.gid = -1

    def __enter__(self) -> Self:
        words = ["useradd", "--system", "--user-group", "--no-create-home", self.name]
        subprocess.run(words, check=True, capture_output=True)
        entry = pwd.getpwnam(self.name)
        self.uid, self.gid = entry.pw_uid, entry.pw_gid
        for file in _SUBORDINATE:
            with file.open("a") as out:
                out.write(f"{self.name}:{_FIRST_ID}:{_IDS}\n")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # userdel removes the lines of the subordinate ids too.
        subprocess.run(["userdel", self.name], check=True, capture_output=True)


class RootlessContainerd(ContainerdDaemon):
    """A containerd of a user. `address` is valid inside and outside of the namespaces.

    Args:
        user: the user.
        own_network: True for a network namespace with nothing but loopback.
    """

    # Outside of the directories that rootlesskit replaces.
    parent = "/var/tmp"

    def __init__(self, user: User, *, own_network: bool = False) -> None:
        super().__init__()
        self.user = user
        self._own_network = own_network
        self._config = _CONFIG
        self.runtime_dir = self.base / "run"
        self.address = str(self.runtime_dir / "containerd/containerd.sock")
        self.base.chmod(0o755)
        for directory in (self.runtime_dir, self.base / "home", self.base / "driver"):
            directory.mkdir(mode=0o700)
        self.give(self.base)
        (self.base / "child.sh").write_text(_CHILD)

    def use(self, folder: Path | None) -> None:
        """Sets the folder of containerd: a copy, because the user cannot read root's folders."""
        copy = self.base / "bin"
        if folder is not None:
            shutil.copytree(folder, copy, dirs_exist_ok=True)
        super().use(copy if folder is not None else None)

    @property
    def prefix(self) -> list[str]:
        """Words before a program that the user runs outside of the namespaces."""
        user = self.user
        variables = {
            "PATH": self._path,
            "HOME": str(self.base / "home"),
            "XDG_RUNTIME_DIR": str(self.runtime_dir),
            "TMPDIR": str(self.base / "driver"),
        }
        words = ["setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups", "env"]
        return [*words, *(f"{name}={value}" for name, value in variables.items())]

    def give(self, path: Path) -> None:
        """Makes the user the owner of a tree."""
        subprocess.run(["chown", "-R", f"{self.user.uid}:{self.user.gid}", str(path)], check=True)

    def inside(self, *words: str) -> str:
        """Runs a program as root of the namespaces and returns the output."""
        pid = daemon_process.peer(self.address)
        enter = ["nsenter", "-U", "-m", "--preserve-credentials", "-t", str(pid)]
        done = subprocess.run(
            [*self.prefix, *enter, *words], check=False, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def close(self) -> None:
        """Ends shims that tests left, then containerd with rootlesskit, and removes the files."""
        for pid in self.shim_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            # rootlesskit's child ends with containerd, and rootlesskit with its child.
            os.kill(daemon_process.peer(self.address), signal.SIGTERM)
        if self.process is not None:
            self.process.wait(30)
            self.process = None
        for pid in self._processes():  # the launcher of a run stays for some minutes
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not self._processes(), 10, lambda: f"processes {self._processes()}")
        shutil.rmtree(self.base, ignore_errors=True)

    def _processes(self) -> list[int]:
        """Lists the pids of the user's processes."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                own = entry.name.isdigit() and entry.stat().st_uid == self.user.uid
                if own and not has_ended(int(entry.name)):
                    found.append(int(entry.name))
        return found

    def command(self) -> Sequence[str]:
        """Returns the command for containerd in the namespaces of rootlesskit."""
        binary, _, config = super().command()
        return [
            *self.prefix,
            "rootlesskit",
            f"--state-dir={self.runtime_dir}/rootlesskit",
            *(
                "--net=host",
                "--copy-up=/etc",
                "--copy-up=/run",
                "--copy-up=/var/lib",
                "--propagation=rslave",
            ),
            *("sh", str(self.base / "child.sh"), binary, config),
            "network" if self._own_network else "",
        ]
