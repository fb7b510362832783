"""A task without Nomad in a guest, which shows whether the task kept running."""

from __future__ import annotations

from pathlib import Path

from tests.support.guest import END_S, Guest

COUNT = 'trap "echo stopped; exit 0" TERM; while :; do echo on; busybox sleep 0.1; done'


class Task:
    """A job that prints until a stop, held by a `containerd-driver run` in the guest."""

    def __init__(self, guest: Guest, out: Path) -> None:
        self._guest = guest
        self._out = out
        guest.shell(f"/root/tests/make-job 127.0.0.1:1/busybox:1 '{COUNT}' > /root/job.json")
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
        self._guest.shell("pkill -INT -of '/usr/bin/containerd-driver run'")
        self._host.wait(END_S)
        return self._out.read_text()

    def _lines(self) -> int:
        return len(self._out.read_text().splitlines()) if self._out.exists() else 0
