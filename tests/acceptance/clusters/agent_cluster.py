"""A whole Nomad agent as the host: `nomad job run`, the API, and the command line for exec."""

from __future__ import annotations

import contextlib
import copy
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.acceptance.clusters.cluster import (
    PATIENCE_S,
    VOLUME,
    Cluster,
    Done,
    End,
    Sample,
    Task,
    Terminal,
    example,
)
from tests.acceptance.clusters.go_cluster import sample
from tests.support.kernel.own_network import OwnNetwork
from tests.support.nomad.api import ApiError, Json, NomadApi
from tests.support.nomad.nomad_agent import NomadAgent
from tests.support.plugin.plugin_dir import make_plugin_dir
from tests.support.waiting import wait_until

# Nomad's bridge mode as a CNI network. Nomad's own bridge asks for kernel modules by name, and a
# kernel with built-in modules does not list the names.
BRIDGE = "bridged"
_CNI: Json = {
    "cniVersion": "0.4.0",
    "name": BRIDGE,
    "plugins": [
        {"type": "loopback"},
        {
            "type": "bridge",
            "bridge": "acceptance0",
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.214.1.0/24"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
        {"type": "firewall", "backend": "iptables"},
        {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
    ],
}


def _is_gone(path: Path) -> bool:
    """Tells whether a directory has been removed."""
    return not path.exists()


class AgentCluster(Cluster):
    """A NomadAgent for all tests.

    Args:
        binary: a `nomad`.
        config: the plugin block's.
        network: where agent and plugin are put; jobs on a bridge are run in no other.
    """

    def __init__(
        self, binary: Path, config: Mapping[str, Any], network: OwnNetwork | None = None
    ) -> None:
        super().__init__()
        self._binary = binary
        self._network = network
        self._config = {**config, **self.own_config()}
        self.tasks: list[AgentTask] = []
        self._begin({})

    def _begin(self, more: Mapping[str, Any]) -> None:
        volume = f'host_volume "{VOLUME}" {{ path = "{self.base / VOLUME}" }}'
        self.agent = NomadAgent(
            self._binary,
            hcl({**self._config, **more}),
            self.base / "state",
            self._network,
            client_block=volume,
        )
        make_plugin_dir(self.agent.plugins)
        config = copy.deepcopy(_CNI)
        config["plugins"][1]["ipam"]["dataDir"] = str(self.base / "ipam")
        (self.agent.cni / f"{BRIDGE}.conflist").write_text(json.dumps(config))
        self.agent.start()
        self.api.text(
            "PUT", "/v1/operator/scheduler/configuration", {"MemoryOversubscriptionEnabled": True}
        )

    @property
    def api(self) -> NomadApi:
        """The agent's."""
        return self.agent.api

    def start(self, job: str, **variables: str) -> Task:
        """See `Cluster`."""
        body = read(self._binary, job, variables)
        # Nomad remembers a purged job with the allocations for a while.
        body["ID"] = f"{body['ID']}-{uuid.uuid4().hex[:8]}"
        for group in body["TaskGroups"]:
            for network in group.get("Networks") or ():
                assert network["Mode"] != "bridge" or self._network, "a bridge on this machine"
                network["Mode"] = network["Mode"].replace("bridge", f"cni/{BRIDGE}")
        alloc = self.api.start(body)
        task = AgentTask(self, body, alloc)
        self.tasks.append(task)
        return task

    def crash(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """See `Cluster`."""
        pids = self.agent.plugin_pids()
        self.agent.kill()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        meanwhile()
        self.agent.start()

    def restart(self, **config: Any) -> None:
        """See `Cluster`."""
        self.clean()
        self.agent.close()
        self._begin(config)

    def clean(self) -> None:
        """See `Cluster`."""
        self.purge(list(self.tasks))

    def purge(self, tasks: Sequence[AgentTask]) -> None:
        """Ends these tasks' jobs, and has servers and client forget them."""
        for task in tasks:
            self.tasks.remove(task)
            with contextlib.suppress(ApiError):  # an earlier collection has removed the job
                self.api.stop_and_wait(task.job["ID"])
        if tasks:
            self.api.collect_garbage()
        for task in tasks:
            wait_until(partial(_is_gone, task.alloc_dir), PATIENCE_S, f"{task.alloc_dir} stays")

    def close(self) -> None:
        """See `Cluster`."""
        self.agent.close()
        self.remove_base()


def read(binary: Path, job: str, variables: Mapping[str, str]) -> Json:
    """Parses a job file as `nomad job run` does, for the API."""
    words = [word for name, value in variables.items() for word in ("-var", f"{name}={value}")]
    done = subprocess.run(
        [str(binary), "job", "run", "-output", *words, str(example(job))],
        env={"PATH": os.defpath, "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    body: Json = json.loads(done.stdout)["Job"]
    return body


def environment(api: NomadApi) -> dict[str, str]:
    """Builds the environment of the `nomad` command, without the tests' own variables."""
    return {"NOMAD_ADDR": api.address, "PATH": os.defpath, "HOME": "/nonexistent"}


def hcl(config: Mapping[str, Any]) -> str:
    """Formats the body of a config block."""
    return "\n".join(f"{name} = {json.dumps(value)}" for name, value in config.items())


class AgentTask(Task):
    """The first task of the only allocation of a job."""

    def __init__(self, cluster: AgentCluster, job: Json, alloc: str) -> None:
        super().__init__(job["TaskGroups"][0]["Tasks"][0]["Name"], alloc)
        self._cluster = cluster
        self.job = job

    @property
    def _api(self) -> NomadApi:
        return self._cluster.api

    @property
    def state(self) -> str:
        """See `Task`."""
        state: str = self._api.task(self.alloc_id, self.name).get("State", "pending")
        return state

    @property
    def alloc_dir(self) -> Path:
        """See `Task`."""
        return self._cluster.agent.alloc_root / self.alloc_id

    def story(self) -> str:
        """See `Task`."""
        return self._api.story(self.alloc_id, self.name)

    def log(self, stream: str = "stdout") -> str:
        """See `Task`."""
        return self._api.logs(self.alloc_id, stream, self.name)

    def exec(self, *argv: str, stdin: str = "") -> Done:
        """See `Task`."""
        done = self._api.exec(self.alloc_id, argv, stdin or None, self.name)
        return Done(code=done.returncode, out=done.stdout, err=done.stderr)

    def script(self, *argv: str) -> Done:
        """See `Task`."""
        raise NotImplementedError(f"{argv}: an agent runs scripts for a Consul, or for templates")

    def terminal(self, *argv: str, rows: int, columns: int) -> Terminal:
        """See `Task`."""
        command = [str(self._cluster.agent.binary), "alloc", "exec", "-i", "-t"]
        command += [f"-task={self.name}", self.alloc_id, *argv]
        return PtyTerminal(command, environment(self._api), rows, columns)

    def signal(self, name: str) -> str:
        """See `Task`."""
        done = subprocess.run(
            [
                *(str(self._cluster.agent.binary), "alloc", "signal", "-s", name),
                *(f"-task={self.name}", self.alloc_id),
            ],
            env=environment(self._api),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return "" if done.returncode == 0 else done.stdout + done.stderr

    def stop(self) -> None:
        """See `Task`."""
        self._api.stop_and_wait(self.job["ID"], purge=False)

    def end(self, timeout_s: float = PATIENCE_S) -> End:
        """See `Task`."""
        wait_until(lambda: self.state == "dead", timeout_s, self.story)
        ends = [e for e in self._api.events(self.alloc_id, self.name) if e["Type"] == "Terminated"]
        details = ends[-1]["Details"]
        return End(exit_code=int(details["exit_code"]), oom_killed=details["oom_killed"] == "true")

    def samples(self, count: int) -> list[Sample]:
        """See `Task`."""
        found = [self._newest()]

        def another() -> bool:
            newest = self._newest()
            if newest.at_ns > found[-1].at_ns:
                found.append(newest)
            return len(found) > count

        wait_until(another, PATIENCE_S, lambda: f"only {found}")
        return found[1:]

    def _newest(self) -> Sample:
        path = f"/v1/client/allocation/{self.alloc_id}/stats"
        stats = wait_until(
            lambda: (self._api.json("GET", path).get("Tasks") or {}).get(self.name),
            PATIENCE_S,
            "no stats",
        )
        return sample(stats)

    def purge(self) -> None:
        """See `Task`."""
        if self in self._cluster.tasks:
            self._cluster.purge([self])


class PtyTerminal(Terminal):
    """A program on a terminal of this machine, like a user's shell."""

    def __init__(self, command: list[str], env: Mapping[str, str], rows: int, columns: int) -> None:
        self._out = bytearray()
        self._master, slave = pty.openpty()
        _set_size(slave, rows, columns)
        self._process = subprocess.Popen(
            command, env=dict(env), stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        # Linux returns EIO once no process has the other end open.
        with contextlib.suppress(OSError):
            while data := os.read(self._master, 4096):
                self._out += data

    def type(self, text: str) -> None:
        """See `Terminal`."""
        os.write(self._master, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        """See `Terminal`."""
        _set_size(self._master, rows, columns)
        self._process.send_signal(signal.SIGWINCH)

    def output(self) -> str:
        """See `Terminal`."""
        return self._out.decode(errors="replace")

    def exit_code(self) -> int:
        """See `Terminal`."""
        code = self._process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        os.close(self._master)
        return code


def _set_size(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
