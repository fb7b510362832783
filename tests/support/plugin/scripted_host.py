"""Runs of `containerd-driver run` on a plugin whose tasks follow a script."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.fakes.scripted_plugin import make_scripted_plugin
from tests.support.plugin.plugin_dir import ROOT
from tests.support.waiting import slowed, wait_until

DEADLINE_S = 30.0


class Host:
    """Runner of jobs on the scripted plugin, which also ends the leftovers of a failed test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.allocs = directory / "allocs"
        self.program = make_scripted_plugin(directory)
        self.processes: list[subprocess.Popen[str]] = []

    def task(self, *steps: str, image: str = "i", name: str = "t", **more: Any) -> dict[str, Any]:
        """Builds a task in Nomad's JSON; steps are the task's script."""
        config = {"image": image, "args": list(steps)}
        return {"Name": name, "Driver": "containerd-driver", "Config": config, **more}

    def start(
        self, *tasks: dict[str, Any], arguments: tuple[str, ...] = (), stdout: int = subprocess.PIPE
    ) -> subprocess.Popen[str]:
        """Starts a run of a job with the tasks in one group."""
        job = self.directory / "job.json"
        job.write_text(json.dumps({"ID": "j", "TaskGroups": [{"Name": "g", "Tasks": tasks}]}))
        return self.start_file(job, arguments, stdout)

    def start_file(
        self, job: Path, arguments: tuple[str, ...] = (), stdout: int = subprocess.PIPE
    ) -> subprocess.Popen[str]:
        """Starts a run of a job file."""
        process = subprocess.Popen(
            [
                *(sys.executable, "-I", str(ROOT / "plugin" / "main.py"), "run", str(job)),
                *("--plugin", str(self.program), "--alloc-dir", str(self.allocs)),
                *("--config", f"state_dir={self.directory}", *arguments),
            ],
            stdin=subprocess.PIPE if str(job) == "-" else subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def run(self, *tasks: dict[str, Any], arguments: tuple[str, ...] = ()) -> tuple[int, str, str]:
        """Returns (exit status, stdout, stderr) of a whole run."""
        return self.ended(self.start(*tasks, arguments=arguments))

    def ended(self, process: subprocess.Popen[str]) -> tuple[int, str, str]:
        """Waits for the end of a run and returns (exit status, stdout, stderr)."""
        out, err = process.communicate(timeout=slowed(DEADLINE_S))
        return process.returncode, out, err

    def journal(self) -> list[str]:
        """Returns the calls that the plugin received."""
        journal = self.directory / "journal"
        return journal.read_text().splitlines() if journal.exists() else []

    def wait_for(self, line: str) -> None:
        """Waits until the plugin received the call."""
        wait_until(lambda: line in self.journal(), DEADLINE_S, lambda: str(self.journal()))

    def close(self) -> None:
        """Kills every process of the remaining runs."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(slowed(DEADLINE_S))
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
