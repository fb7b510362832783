"""Client of a Nomad agent for the tests: the HTTP API, and the command line for websockets."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.kernel.own_network import OwnNetwork
from tests.support.waiting import slowed, wait_until

Json = dict[str, Any]
_SECOND = 1_000_000_000
DEAF: Json = {"KillTimeout": _SECOND // 10}
"""Of a task that hears no SIGTERM: it is not given time to end by it."""
_TERMINAL = ("complete", "failed", "lost")


class ApiError(AssertionError):
    """The agent answered with something other than success."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status}: {text}")
        self.status = status


def make_job(
    name: str,
    config: Mapping[str, Any],
    *,
    kind: str = "service",
    count: int = 1,
    attempts: int = 0,
    driver: str = "containerd-driver",
    **task: Any,
) -> Json:
    """Builds a job of one group "g" with one task "main", in the API's form.

    Args:
        name: id of the job.
        config: the driver's config of the task.
        kind: service or batch.
        count: number of allocations.
        attempts: number of restarts by the client; after the last the task has failed.
        driver: the driver.
        task: further keys of the API's task object, such as KillSignal.
    """
    return {
        "ID": name,
        "Name": name,
        "Type": kind,
        "Datacenters": ["dc1"],
        "TaskGroups": [
            {
                "Name": "g",
                "Count": count,
                "RestartPolicy": {
                    "Attempts": attempts,
                    "Interval": 600 * _SECOND,
                    "Delay": _SECOND // 10,
                    "Mode": "fail",
                },
                "ReschedulePolicy": {"Attempts": 0, "Unlimited": False},
                "EphemeralDisk": {"SizeMB": 10},
                "Tasks": [
                    {
                        "Name": "main",
                        "Driver": driver,
                        "Config": dict(config),
                        "Resources": {"CPU": 50, "MemoryMB": 32},
                        "LogConfig": {"MaxFiles": 1, "MaxFileSizeMB": 2},
                        **task,
                    }
                ],
            }
        ],
    }


class NomadApi:
    """A client of an agent.

    Args:
        address: the agent's HTTP address.
        binary: the `nomad` program, for actions which only the command line has.
        network: network in which the agent listens; None for the machine's network.
    """

    def __init__(self, address: str, binary: Path, network: OwnNetwork | None = None) -> None:
        self.address = address
        self._binary = binary
        # A proxy from the environment would take loopback requests elsewhere.
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if network is not None:
            handlers.append(network.http_handler())
        self._opener = urllib.request.build_opener(*handlers)

    def text(self, method: str, path: str, body: Any = None, **query: str | int | bool) -> str:
        """Sends a request and returns the answer as text.

        Raises:
            ApiError: any status other than 2xx.
            OSError: nobody answers there.
        """
        words = {key: json.dumps(v) if isinstance(v, bool) else v for key, v in query.items()}
        request = urllib.request.Request(
            f"{self.address}{path}?{urllib.parse.urlencode(words)}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
        )
        try:
            with self._opener.open(request, timeout=slowed(60)) as answer:
                content: bytes = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise ApiError(error.code, error.read().decode(errors="replace")) from error
        return content.decode(errors="replace")

    def json(self, method: str, path: str, body: Any = None, **query: str | int | bool) -> Any:
        """Sends a request and returns the parsed answer."""
        return json.loads(self.text(method, path, body, **query))

    # The machine and its driver

    def node(self) -> Json | None:
        """Returns the only client, or None before the client has registered."""
        nodes = self.json("GET", "/v1/nodes")
        return self.json("GET", f"/v1/node/{nodes[0]['ID']}") if nodes else None

    def driver_info(self, driver: str) -> Json:
        """Returns a driver's data: Detected, Healthy, HealthDescription, Attributes."""
        node = self.node()
        info: Json = ((node or {}).get("Drivers") or {}).get(driver) or {}
        return info

    # Jobs

    def parse(self, text: str) -> Json:
        """Parses a job in HCL into the API's form."""
        job: Json = self.json("POST", "/v1/jobs/parse", {"JobHCL": text, "Canonicalize": True})
        return job

    def submit(self, job: Json) -> None:
        """Registers the job."""
        self.json("POST", "/v1/jobs", {"Job": job})

    def start(self, job: Json, timeout_s: float = 30) -> str:
        """Registers the job and returns the only allocation's id, once the client has it."""
        self.submit(job)
        wait_until(
            lambda: any(entry.get("TaskStates") for entry in self.allocs(job["ID"])),
            timeout_s,
            lambda: f"no allocation of {job['ID']}: {self._evaluations(job['ID'])}",
        )
        alloc: str = self.allocs(job["ID"])[0]["ID"]
        return alloc

    def run(self, job: Json, timeout_s: float = 60) -> str:
        """Starts a job as `start` does, and waits until the task runs."""
        alloc = self.start(job)
        self.wait_state(alloc, "running", timeout_s)
        return alloc

    def stop(self, job: str, *, purge: bool = False) -> None:
        """Asks for the job's end."""
        self.json("DELETE", f"/v1/job/{job}", purge=purge)

    def stop_and_wait(self, job: str, *, purge: bool = True, timeout_s: float = 60) -> None:
        """Stops a job as `stop` does, and waits until every allocation has ended on the client."""
        ids = [entry["ID"] for entry in self.allocs(job)]
        self.stop(job, purge=purge)
        for alloc in ids:
            self.wait_over(alloc, timeout_s)

    def jobs(self) -> list[str]:
        """Returns the ids of all jobs."""
        return [job["ID"] for job in self.json("GET", "/v1/jobs")]

    def collect_garbage(self) -> None:
        """Collects ended objects of servers and clients, directories included."""
        self.text("PUT", "/v1/system/gc")

    # Allocations

    def allocs(self, job: str) -> list[Json]:
        """Returns the job's allocations, the newest first."""
        found: list[Json] = self.json("GET", f"/v1/job/{job}/allocations")
        return sorted(found, key=lambda entry: -entry["CreateIndex"])

    def alloc(self, alloc: str) -> Json:
        """Returns all data of an allocation."""
        found: Json = self.json("GET", f"/v1/allocation/{alloc}")
        return found

    def task(self, alloc: str, task: str = "main") -> Json:
        """Returns a task's State, Failed, Restarts, Events and so on."""
        found: Json = (self.alloc(alloc).get("TaskStates") or {}).get(task) or {}
        return found

    def events(self, alloc: str, task: str = "main") -> list[Json]:
        """Returns a task's events, the oldest first."""
        events: list[Json] = self.task(alloc, task).get("Events") or []
        return events

    def story(self, alloc: str, task: str = "main") -> str:
        """Returns a task's events as one text, for assertions and their messages."""
        return "\n".join(
            f"{event['Type']}: {event['DisplayMessage']}" for event in self.events(alloc, task)
        )

    def wait_state(self, alloc: str, state: str, timeout_s: float = 60, task: str = "main") -> None:
        """Waits until the task is pending, running or dead."""

        def there() -> bool:
            now: str = self.task(alloc, task).get("State", "")
            if now == "dead" != state:
                raise AssertionError(f"the task is dead: {self.story(alloc, task)}")
            return now == state

        wait_until(there, timeout_s, lambda: f"{state}: {self.story(alloc, task)}")

    def wait_over(self, alloc: str, timeout_s: float = 60) -> Json:
        """Waits until nothing of the allocation runs any more, and returns the allocation."""
        wait_until(
            lambda: self.alloc(alloc)["ClientStatus"] in _TERMINAL,
            timeout_s,
            lambda: f"{alloc} goes on: {self.story(alloc)}",
        )
        return self.alloc(alloc)

    def logs(self, alloc: str, stream: str = "stdout", task: str = "main") -> str:
        """Returns the task's output which has arrived so far; "" before the first output."""
        try:
            return self.text(
                "GET",
                f"/v1/client/fs/logs/{alloc}",
                task=task,
                type=stream,
                plain=True,
                origin="start",
            )
        except ApiError:
            return ""

    def wait_log(self, alloc: str, text: str, stream: str = "stdout", timeout_s: float = 30) -> str:
        """Waits until the log has the text, and returns the log."""
        wait_until(
            lambda: text in self.logs(alloc, stream),
            timeout_s,
            lambda: f"{text!r} in {self.logs(alloc, stream)[-2000:]!r}; {self.story(alloc)}",
        )
        return self.logs(alloc, stream)

    def signal(self, alloc: str, name: str, task: str = "main") -> None:
        """Sends a signal."""
        body = {"Signal": name, "TaskName": task}
        self.text("PUT", f"/v1/client/allocation/{alloc}/signal", body)

    def restart(self, alloc: str, task: str = "main") -> None:
        """Restarts a task in place."""
        self.text("PUT", f"/v1/client/allocation/{alloc}/restart", {"TaskName": task})

    def stats(self, alloc: str, task: str = "main") -> Json:
        """Returns the newest MemoryStats and CpuStats; {} before the first sample."""
        answer = self.json("GET", f"/v1/client/allocation/{alloc}/stats")
        usage: Json = ((answer.get("Tasks") or {}).get(task) or {}).get("ResourceUsage") or {}
        return usage

    def exec(
        self, alloc: str, command: Sequence[str], stdin: str | None = None, task: str = "main"
    ) -> subprocess.CompletedProcess[str]:
        """Runs `nomad alloc exec` without a terminal; reads stdin only when stdin has content."""
        interactive = "false" if stdin is None else "true"
        return subprocess.run(
            [
                str(self._binary),
                "alloc",
                "exec",
                f"-i={interactive}",
                "-t=false",
                f"-task={task}",
                alloc,
                *command,
            ],
            input=stdin or "",
            env={"NOMAD_ADDR": self.address, "PATH": os.defpath, "HOME": "/nonexistent"},
            capture_output=True,
            text=True,
            check=False,
            timeout=slowed(60),
        )

    def _evaluations(self, job: str) -> str:
        found = self.json("GET", f"/v1/job/{job}/evaluations")
        return json.dumps([entry.get("FailedTGAllocs") for entry in found])[:2000]
