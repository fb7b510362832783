"""Nomad's own loader and driver client as a host; the job file is read by the embedded host."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from actors.model.nomad import DnsConfig
from plugin.host.run.alloc_plan import PlannedTask
from tests.acceptance.clusters.cluster import PATIENCE_S, Cluster, Done, End, Sample, Task, Terminal
from tests.acceptance.clusters.embedded import planned
from tests.support.nomad.go_host import ExecSession, GoHost, HostError, HostTask, Json
from tests.support.waiting import wait_until
from tests.support.workers.peers import has_ended


class GoCluster(Cluster):
    """A GoHost for all tests. config is the plugin block's."""

    def __init__(self, binary: Path, config: Mapping[str, Any]) -> None:
        super().__init__()
        self._binary = binary
        self._config = {**config, **self.own_config()}
        self.tasks: list[GoTask] = []
        self._begin({})

    def _begin(self, more: Mapping[str, Any]) -> None:
        config = json.dumps({**self._config, **more})
        self.host = GoHost(self._binary, config, self.base / "state")
        self.host.start()
        self.host.launch()

    def start(self, job: str, **variables: str) -> Task:
        """See `Cluster`."""
        task = GoTask(self, planned(job, variables, self.base))
        self.tasks.append(task)
        task.begin()
        return task

    def crash(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """See `Cluster`."""
        pid = self.host.plugin_pid()
        self.host.kill()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: has_ended(pid), PATIENCE_S, "the plugin lives on")
        meanwhile()
        self.host.start()
        self.host.launch()
        for task in self.tasks:
            task.recover()

    def restart(self, **config: Any) -> None:
        """See `Cluster`."""
        self.clean()
        self.host.close()
        self._begin(config)

    def clean(self) -> None:
        """See `Cluster`."""
        for task in list(self.tasks):
            task.purge()

    def close(self) -> None:
        """See `Cluster`."""
        self.host.close()
        self.remove_base()


class GoTask(Task):
    """A task of the Go host."""

    def __init__(self, cluster: GoCluster, plan: PlannedTask) -> None:
        super().__init__(plan.task.name, plan.config.alloc_id)
        self._cluster = cluster
        self._plan = plan
        config, task = plan.config, plan.task
        self._task = HostTask(
            alloc_dir=Path(config.alloc_dir),
            # HCL 1 reads JSON too; nested objects are blocks or maps, by the schema.
            config_hcl=json.dumps(plan.options),
            name=task.name,
            alloc_id=config.alloc_id,
            id=config.id,
            env=dict(config.env),
            user=config.user,
            cpu_shares=task.cpu_mhz,
            memory_mb=task.memory_mb,
            memory_max_mb=task.memory_max_mb,
            mounts=[
                {"host": mount.host_path, "task": mount.task_path, "readonly": mount.readonly}
                for mount in config.mounts
            ],
            dns=_dns(config.dns),
        )
        self._handle: Json = {}
        self._wait: Future[Json] | None = None
        self._failure = ""

    @property
    def _host(self) -> GoHost:
        return self._cluster.host

    def begin(self) -> None:
        """Sends StartTask, and a WaitTask in the background."""
        try:
            self._handle = self._host.begin(self._task)["handle"]
        except HostError as error:
            self._failure = str(error)
            return
        self._wait = self._host.send("wait", task_id=self._task.id)

    def recover(self) -> None:
        """Recovers the task in a new host with RecoverTask."""
        self._host.call("recover", handle=self._handle, task=self._task.to_wire())
        self._wait = self._host.send("wait", task_id=self._task.id)

    @property
    def state(self) -> str:
        """See `Task`."""
        over = self._wait is None or self._wait.done()
        return "dead" if over else "running"

    @property
    def alloc_dir(self) -> Path:
        """See `Task`."""
        return self._task.alloc_dir

    def story(self) -> str:
        """See `Task`."""
        told = [
            event["message"]
            for event in list(self._host.events)
            if event.get("event") == "task" and event["task_id"] == self._task.id
        ]
        return "\n".join([*told, self._failure])

    def log(self, stream: str = "stdout") -> str:
        """See `Task`."""
        return self._task.log(stream)

    def exec(self, *argv: str, stdin: str = "") -> Done:
        """See `Task`."""
        run = self._host.exec_stream(self._task, argv)
        if stdin:
            run.type(stdin)
        run.close_stdin()
        try:
            code, why = run.exit_code(), ""
        except HostError as error:
            code, why = 1, str(error)
        return Done(code=code, out=run.output(), err=run.output("stderr") + why)

    def script(self, *argv: str) -> Done:
        """See `Task`."""
        code, out, err = self._host.exec(self._task, *argv)
        return Done(code=code, out=out, err=err)

    def terminal(self, *argv: str, rows: int, columns: int) -> Terminal:
        """See `Task`."""
        run = GoTerminal(self._host.exec_stream(self._task, argv, tty=True))
        run.resize(rows, columns)
        return run

    def signal(self, name: str) -> str:
        """See `Task`."""
        try:
            self._host.call("signal", task_id=self._task.id, signal=name)
        except HostError as error:
            return str(error)
        return ""

    def stop(self) -> None:
        """See `Task`."""
        task = self._plan.task
        self._host.call(
            "stop", task_id=self._task.id, timeout_s=task.kill_timeout_s, signal=task.kill_signal
        )
        self.end()

    def end(self, timeout_s: float = PATIENCE_S) -> End:
        """See `Task`."""
        assert self._wait is not None, self.story()
        answer = self._wait.result(timeout_s)
        return End(exit_code=answer["exit_code"], oom_killed=answer["oom_killed"])

    def samples(self, count: int) -> list[Sample]:
        """See `Task`."""
        answer = self._host.call("stats", task_id=self._task.id, interval_s=1, count=count)
        return [sample(item) for item in answer["samples"]]

    def purge(self) -> None:
        """See `Task`."""
        if self in self._cluster.tasks:
            self._cluster.tasks.remove(self)
            self._host.end(self._task)
            assert self._plan.alloc.remove() == ""


def _dns(dns: DnsConfig | None) -> Json | None:
    """Returns the DNS settings as the Go host reads them."""
    if dns is None:
        return None
    return {"Servers": dns.servers, "Searches": dns.searches, "Options": dns.options}


def sample(item: Json) -> Sample:
    """Parses a TaskResourceUsage from Go's JSON."""
    memory, cpu = item["ResourceUsage"]["MemoryStats"], item["ResourceUsage"]["CpuStats"]
    return Sample(
        at_ns=item["Timestamp"],
        rss=memory["RSS"],
        usage=memory["Usage"],
        cache=memory["Cache"],
        swap=memory["Swap"],
        percent=cpu["Percent"],
        user_percent=cpu["UserMode"],
        system_percent=cpu["SystemMode"],
        total_ticks=cpu["TotalTicks"],
    )


class GoTerminal(Terminal):
    """ExecTaskStreaming with a terminal."""

    def __init__(self, session: ExecSession) -> None:
        self._session = session

    def type(self, text: str) -> None:
        """See `Terminal`."""
        self._session.type(text)

    def resize(self, rows: int, columns: int) -> None:
        """See `Terminal`."""
        self._session.resize(rows, columns)

    def output(self) -> str:
        """See `Terminal`."""
        return self._session.output()

    def exit_code(self) -> int:
        """See `Terminal`."""
        return self._session.exit_code()
