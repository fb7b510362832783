"""A Debian guest with systemd as process 1, from a root of `./dev guest SUITE`.

A guest writes to an overlay, which ends with the guest. Its network has loopback alone: the root
already contains the dependencies of the package.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.guests.guest_shell import GuestShell
from tests.support.needs import missing
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[3]
GUESTS = ROOT / ".cache/guest"
BOOT_S, END_S, COMMAND_S = 60, 30, 120
_ENVIRONMENT = (
    *(
        "env",
        "-i",
        "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG=C.UTF-8",
        "HOME=/root",
    ),
    "DEBIAN_FRONTEND=noninteractive",
)
_LEGACY = ("systemd.unified_cgroup_hierarchy=0", "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1")
_REMOUNT = "for c in /sys/fs/cgroup/*/; do mount -o remount,bind,rw $c 2>/dev/null; done; true"


def unified() -> bool:
    """Returns whether the machine has cgroup v2 alone."""
    return Path("/sys/fs/cgroup/cgroup.controllers").exists()


def root_of(suite: str) -> Path:
    """Returns the directory where `./dev guest` puts a suite's root."""
    return GUESTS / suite


def need_guest(suite: str, *programs: str) -> None:
    """Requires a suite's root, and programs that `./dev guest` installs."""
    for program in programs:
        if shutil.which(program, path="/usr/bin:/usr/sbin:/bin:/sbin") is None:
            missing("packaging", f"{program} is not installed: ./dev guest {suite} brings it")
    if not root_of(suite).is_dir():
        missing("packaging", f"there is no guest: ./dev guest {suite} makes it")


@contextlib.contextmanager
def overlay(suite: str) -> Iterator[Path]:
    """Mounts a writable copy of a root for a `with` block, then discards the changes."""
    # Not pytest's directory: mounts in there count as left behind by the test that is over.
    work = Path(tempfile.mkdtemp(prefix="run-", dir=root_of(suite).parent))
    # In memory: an unpacked archive is hundreds of megabytes, and a busy disk takes minutes.
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(work)], check=True)
    for name in ("root", "upper", "work"):
        (work / name).mkdir()
    layers = f"lowerdir={root_of(suite)},upperdir={work / 'upper'},workdir={work / 'work'}"
    root = work / "root"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, str(root)], check=True)
    try:
        yield root
    finally:
        subprocess.run(["umount", str(root), str(work)], check=True)
        work.rmdir()


def without_systemd(root: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Runs a script in a container without other processes."""
    return subprocess.run(
        [*_nspawn(root), "--as-pid2", *_ENVIRONMENT, "sh", "-ec", f"{_REMOUNT}; {script}"],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=COMMAND_S,
    )


class Guest(GuestShell):
    """One boot of a guest.

    Args:
        root: the root of the guest, from `overlay`.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._log = root.parent / "console"
        self._process = self._boot()
        try:
            wait_until(self._up, BOOT_S, lambda: f"no boot: {self._log.read_text()[-2000:]}")
            self.shell(_REMOUNT)
        except BaseException:
            self.close()
            raise

    def start(self, *words: str, out: Path | None = None) -> subprocess.Popen[bytes]:
        """Starts a command and appends its output to `out`."""
        with (out or Path(os.devnull)).open("ab") as file:
            return subprocess.Popen(
                self._enter(*words), stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end, whatever the exit status."""
        return subprocess.run(
            self._enter(*words),
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_S,
        )

    def copy(self, source: Path, target: str) -> None:
        """Copies a file or directory into the guest."""
        place = self._root / target.lstrip("/")
        if source.is_dir():
            shutil.copytree(source, place, dirs_exist_ok=True)
        else:
            shutil.copy(source, place)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Freezes all processes of the guest for a `with` block; clocks go on."""
        stopped: list[int] = []
        try:
            # Who was just being forked shows in a later look: by then its parent stands still.
            while new := [pid for pid in _family(self._leader()) if pid not in stopped]:
                stopped += new
                _signal(new, signal.SIGSTOP)
            yield
        finally:
            _signal(stopped, signal.SIGCONT)

    def close(self) -> None:
        """Ends the guest with all its processes."""
        leader = self._leader()
        if leader:
            os.kill(leader, 9)  # process 1 of its namespace takes the others along
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _boot(self) -> subprocess.Popen[bytes]:
        with self._log.open("wb") as log:
            return subprocess.Popen(
                [*_nspawn(self._root), "--boot", *(() if unified() else ("--", *_LEGACY))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _leader(self) -> int:
        pid = self._process.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            return 0
        return int(children[0]) if children else 0

    def _enter(self, *words: str) -> list[str]:
        leader = str(self._leader())
        return ["nsenter", "-t", leader, "-a", "-r", "-w", *_ENVIRONMENT, *words]

    def _up(self) -> bool:
        assert self._process.poll() is None, f"no boot: {self._log.read_text()[-2000:]}"
        if not self._leader():
            return False
        said = self.run("systemctl", "is-system-running").stdout
        return said.strip() in {"running", "degraded"}


def _nspawn(root: Path) -> list[str]:
    return [
        *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network"),
        *("-M", f"cd-{os.getpid()}", "-D", str(root), "--capability=all"),
        *("--system-call-filter=@keyring bpf", "--tmpfs=/var/lib/containerd"),
    ]


def _family(pid: int) -> list[int]:
    """Lists a process and all its descendants."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        text = " ".join((thread / "children").read_text() for thread in threads)
    except OSError:
        return [pid]
    return [pid, *(one for child in text.split() for one in _family(int(child)))]


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
