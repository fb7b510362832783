"""`containerd-driver run` of a job on real containers, in a network of the test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from plugin.host.network import cni, namespaces
from tests.support.kernel.own_network import OwnNetwork
from tests.support.plugin.driver import Driver
from tests.support.plugin.plugin_dir import command
from tests.support.waiting import slowed, wait_until

DEADLINE_S = 60.0


class Run:
    """`containerd-driver run --json` of a job inside the test's network."""

    def __init__(self, network: OwnNetwork, driver: Driver, directory: Path) -> None:
        self.network = network
        self._driver = driver
        self._directory = directory
        self.process: subprocess.Popen[str] | None = None
        self.alloc_ids: list[str] = []

    def start(self, groups: list[dict[str, Any]], *words: str) -> None:
        """Starts a job with these groups."""
        job = self._directory / "job.json"
        job.write_text(json.dumps({"ID": "j", "TaskGroups": groups}))
        self.start_file(job, *words)

    def start_file(self, job: Path, *words: str) -> None:
        """Starts a job file. The output goes to a file, so that the host never blocks."""
        daemon = self._driver.containerd
        with self._log().open("wb") as log:
            self.process = self.network.popen(
                [
                    *(*command(), "run", str(job)),
                    *("--json", "--alloc-dir", str(self._driver.alloc_root)),
                    *("--config", f"containerd_address={daemon.address}"),
                    *("--config", f"containerd_namespace={daemon.namespace}"),
                    *("--config", f"state_dir={self._driver.state_dir}"),
                    *words,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _log(self) -> Path:
        return self._directory / "log"

    def said(self, kind: str) -> list[dict[str, Any]]:
        """Returns the records of one kind that the host has printed."""
        lines = self._log().read_text().splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in found if line["kind"] == kind]

    def wait_said(self, kind: str, count: int = 1) -> list[dict[str, Any]]:
        """Waits for `count` records of one kind and returns them."""
        wait_until(
            lambda: len(self.said(kind)) >= count or self.ended(),
            DEADLINE_S,
            lambda: self._log().read_text(),
        )
        found = self.said(kind)
        assert len(found) >= count, self._log().read_text()
        self.note_allocations()
        return found

    def note_allocations(self) -> None:
        """Stores the ids of the present allocations for `left`."""
        self.alloc_ids = [entry.name for entry in self._driver.alloc_root.glob("*")]

    def page(self, address: str, path: str) -> str:
        """Waits for an answer of a task's web server and returns the page."""
        return wait_until(
            lambda: self.network.fetch(address, path), DEADLINE_S, lambda: self._log().read_text()
        )

    def ended(self) -> bool:
        """Returns whether the host has ended."""
        assert self.process is not None
        return self.process.poll() is not None

    def stop(self) -> int:
        """Sends Ctrl-C and returns the exit status."""
        self.interrupt()
        return self.finish()

    def interrupt(self) -> None:
        """Sends Ctrl-C as a terminal does: to all processes in its foreground."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGINT)

    def finish(self) -> int:
        """Waits for the host's end and returns the exit status."""
        assert self.process is not None
        return self.process.wait(slowed(DEADLINE_S))

    def left(self) -> list[str]:
        """Lists the remains of the allocations' networks."""
        rules, links = self.network.rules(), self.network.links()
        left = [link for link in links if link == cni.BRIDGE or link.startswith("veth")]
        for alloc_id in self.alloc_ids:
            left += [line for line in rules.splitlines() if alloc_id in line]
            left += [alloc_id] if Path(namespaces.path(alloc_id)).exists() else []
            addresses = (cni.STATE / cni.NETWORK).glob("[0-9]*")
            left += [str(file) for file in addresses if alloc_id in file.read_text()]
        return left
