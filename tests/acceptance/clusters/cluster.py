"""Interface of an acceptance test to the host of a job: a task's life, under each kind of host.

Three hosts exist: the embedded host of `containerd-driver run`, Nomad's own client code without the
rest of Nomad, and a whole Nomad agent. A test names a job of `example/` and observes a task.
"""

from __future__ import annotations

import abc
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.model import identifiers
from tests.support.kernel import mounted
from tests.support.kernel.task_cgroup import V2, TaskCgroup
from tests.support.plugin.plugin_dir import ROOT
from tests.support.waiting import wait_until

EXAMPLES = ROOT / "example"
VOLUME, PROFILES = "s1", "seccomp"
PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A finished command in a task's container. Output of a terminal is all in stdout."""

    code: int
    out: str
    err: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The end of a task."""

    exit_code: int
    oom_killed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A sample of a task's stats. percent: 100 is one core, fully busy."""

    at_ns: int
    rss: int
    usage: int
    cache: int
    swap: int
    percent: float
    user_percent: float
    system_percent: float
    total_ticks: float


class Terminal(abc.ABC):
    """A command on a terminal, like `nomad alloc exec -it`."""

    @abc.abstractmethod
    def type(self, text: str) -> None:
        """Types the text."""

    @abc.abstractmethod
    def resize(self, rows: int, columns: int) -> None:
        """Gives the terminal another size."""

    @abc.abstractmethod
    def output(self) -> str:
        """Returns all output so far."""

    @abc.abstractmethod
    def exit_code(self) -> int:
        """Waits for the command's end."""

    def expect(self, text: str) -> None:
        """Waits until the text came."""
        wait_until(
            lambda: text in self.output(), PATIENCE_S, lambda: f"{text!r} in {self.output()!r}"
        )


class Task(abc.ABC):
    """One task of a job. `name` and `alloc_id` are Nomad's."""

    def __init__(self, name: str, alloc_id: str) -> None:
        self.name = name
        self.alloc_id = alloc_id

    @property
    def container(self) -> str:
        """The container's id in containerd."""
        return identifiers.container_id(self.alloc_id, self.name, cgroup_v2=V2)

    @property
    def cgroup(self) -> TaskCgroup:
        """The kernel's own numbers of the task."""
        return TaskCgroup(identifiers.namespace(cgroup_v2=V2), self.container)

    @property
    @abc.abstractmethod
    def state(self) -> str:
        """`pending`, `running` or `dead`."""

    @property
    @abc.abstractmethod
    def alloc_dir(self) -> Path:
        """Path of the allocation's directory on the host, which contains `alloc/`."""

    @abc.abstractmethod
    def story(self) -> str:
        """Returns the messages to the user about the task: events and failures."""

    @abc.abstractmethod
    def log(self, stream: str = "stdout") -> str:
        """Returns the log of the task so far."""

    @abc.abstractmethod
    def exec(self, *argv: str, stdin: str = "") -> Done:
        """Runs a command in the container and passes the command's streams on."""

    @abc.abstractmethod
    def script(self, *argv: str) -> Done:
        """Runs a command as script checks do."""

    @abc.abstractmethod
    def terminal(self, *argv: str, rows: int, columns: int) -> Terminal:
        """Runs a command in the container on a terminal."""

    @abc.abstractmethod
    def signal(self, name: str) -> str:
        """Sends a signal; the words of a refusal, or nothing."""

    @abc.abstractmethod
    def stop(self) -> None:
        """Stops the task with the job's settings, and returns after the end."""

    @abc.abstractmethod
    def end(self, timeout_s: float = PATIENCE_S) -> End:
        """Waits until the task has ended by itself or by `stop`."""

    @abc.abstractmethod
    def samples(self, count: int) -> list[Sample]:
        """Returns the given number of consecutive stats samples; the first may lack percents."""

    @abc.abstractmethod
    def purge(self) -> None:
        """Ends a running task, and removes everything of the task."""

    def shell(self, script: str) -> str:
        """Returns the output of a shell script in the container; the script has to succeed."""
        done = self.exec("/bin/sh", "-c", script)
        assert done.code == 0, f"{script}: {done}"
        return done.out

    def wait_log(self, text: str, stream: str = "stdout") -> str:
        """Waits until the log has the text, and returns the log."""
        wait_until(
            lambda: text in self.log(stream),
            PATIENCE_S,
            lambda: f"{text!r} in {self.log(stream)[-2000:]!r}; {self.story()}",
        )
        return self.log(stream)

    def wait_running(self) -> None:
        """Waits until the task runs."""

        def runs() -> bool:
            assert self.state != "dead", self.story()
            return self.state == "running"

        wait_until(runs, 60, self.story)

    def failure(self) -> str:
        """Returns the messages to the user once the task is dead."""
        wait_until(lambda: self.state == "dead", PATIENCE_S, self.story)
        return self.story()


class Cluster(abc.ABC):
    """A host with the driver.

    Attributes:
        base: directory of the host, with a short path since sockets lie below. Contains the
            driver's state, the host volume "s1" and the profiles that jobs may name.
    """

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="cd-acc-", dir="/run"))
        for name in (VOLUME, PROFILES):
            (self.base / name).mkdir()

    def own_config(self) -> dict[str, str]:
        """Returns the part of the driver's config that belongs to the host."""
        return {
            "state_dir": str(self.base / "state"),
            "seccomp_profile_dir": str(self.base / PROFILES),
        }

    def remove_base(self) -> None:
        """Removes the base directory, without mounts by now, as the last step of `close`."""
        left = mounted.detach_below(self.base)
        shutil.rmtree(self.base, ignore_errors=True)
        assert left == [], f"mounts were left: {left}"

    @abc.abstractmethod
    def start(self, job: str, **variables: str) -> Task:
        """Starts a job of `example/`; the task may not run yet, or may have failed."""

    @abc.abstractmethod
    def crash(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Kills host and plugin with SIGKILL; both come back.

        Args:
            meanwhile: function to call while neither process exists.
        """

    @abc.abstractmethod
    def restart(self, **config: Any) -> None:
        """Ends all and starts another host, with additions to the driver's config."""

    @abc.abstractmethod
    def clean(self) -> None:
        """Purges the tasks left by a test."""

    @abc.abstractmethod
    def close(self) -> None:
        """Ends the host and everything that belongs to the host."""

    def run(self, job: str, **variables: str) -> Task:
        """Starts a job as `start` does, and waits until the task runs."""
        task = self.start(job, **variables)
        task.wait_running()
        return task

    def failure(self, job: str, **variables: str) -> str:
        """Returns the messages to the user about a failed start, and purges the job."""
        task = self.start(job, **variables)
        story = task.failure()
        task.purge()
        return story


def example(name: str) -> Path:
    """Returns the path of a job file."""
    return EXAMPLES / f"{name}.nomad"
