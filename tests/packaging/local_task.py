"""A task without Nomad in a guest, which shows whether the task kept running."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.guests.guest import END_S, ROOT, Guest

IMAGE = "127.0.0.1:1/busybox:1"
_TOOLS = ROOT / "packaging" / "debian" / "tests"

COUNT = 'trap "echo stopped; exit 0" TERM; while :; do echo on; busybox sleep 0.1; done'


def put_image(root: Path) -> None:
    """Writes the archive of IMAGE to /root/image.tar of a guest, which may have no Python."""
    made = subprocess.run([_TOOLS / "make-image", IMAGE], check=True, capture_output=True)
    (root / "root/image.tar").write_bytes(made.stdout)


def put_job(guest: Guest, script: str, work: Path) -> None:
    """Writes a job to /root/job.json of a guest."""
    made = subprocess.run([_TOOLS / "make-job", IMAGE, script], check=True, capture_output=True)
    (work / "job.json").write_bytes(made.stdout)
    guest.copy(work / "job.json", "/root/job.json")


class Task:
    """A job that prints until a stop, held by a `containerd-driver run` in the guest."""

    def __init__(self, guest: Guest, out: Path) -> None:
        self._guest = guest
        self._out = out
        put_job(guest, COUNT, out.parent)
        self._host = guest.start("containerd-driver", "run", "/root/job.json", out=out)
        self.goes_on()
        self.worker = guest.shell("pgrep -x cd-worker")

    def goes_on(self) -> None:
        """Waits for output that the task prints from now on."""
        before = self._lines()
        self._guest.wait(lambda: self._lines() > before + 2, f"no task: {self._out.read_text()}")

    def has_its_worker(self) -> bool:
        """Tells whether the worker is still the first worker."""
        return self._guest.shell("pgrep -x cd-worker") == self.worker

    def stop(self) -> str:
        """Stops the job as Ctrl-C does and returns the printed lines."""
        self._guest.shell("pkill -INT -of '[c]ontainerd-driver run /root/job.json'")
        self._host.wait(END_S)
        return self._out.read_text()

    def _lines(self) -> int:
        return len(self._out.read_text().splitlines()) if self._out.exists() else 0
