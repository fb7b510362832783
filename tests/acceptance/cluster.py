"""What an acceptance test asks of whoever runs its job: a task's life, whichever host drives it.

Three hosts: the embedded one of `containerd-driver run`, Nomad's own client code without the rest
of Nomad, and a whole Nomad agent. A test names a job of `example/`, and looks at one task of it.
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
from tests.acceptance.task_cgroup import V2, TaskCgroup
from tests.support import mounted
from tests.support.plugin_dir import ROOT
from tests.support.waiting import wait_until

EXAMPLES = ROOT / "example"
VOLUME, PROFILES = "s1", "seccomp"
PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A command that was run in a task's container. Of a terminal all output is stdout."""

    code: int
    out: str
    err: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a task ended."""

    exit_code: int
    oom_killed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sample of a task's stats. percent: 100 is one core busy all the time."""

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
    """A command on a terminal of its own, as `nomad alloc exec -it` gives it."""

    @abc.abstractmethod
    def type(self, text: str) -> None:
        """Types it."""

    @abc.abstractmethod
    def resize(self, rows: int, columns: int) -> None:
        """Gives the terminal another size."""

    @abc.abstractmethod
    def output(self) -> str:
        """All that came so far."""

    @abc.abstractmethod
    def exit_code(self) -> int:
        """Waits for the command's end."""

    def expect(self, text: str) -> None:
        """Until the text came."""
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
        """The allocation's directory on the host, with `alloc/` in it."""

    @abc.abstractmethod
    def story(self) -> str:
        """What the user is told of the task: events and failures."""

    @abc.abstractmethod
    def log(self, stream: str = "stdout") -> str:
        """What the task has written so far."""

    @abc.abstractmethod
    def exec(self, *argv: str, stdin: str = "") -> Done:
        """Runs a command in the container, its streams passed on."""

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
        """Stops the task as its job says, and returns when it has ended."""

    @abc.abstractmethod
    def end(self, timeout_s: float = PATIENCE_S) -> End:
        """Waits until the task has ended by itself or by `stop`."""

    @abc.abstractmethod
    def samples(self, count: int) -> list[Sample]:
        """So many samples of its stats, one after the other; the first may have no percents."""

    @abc.abstractmethod
    def purge(self) -> None:
        """Ends the task if it runs, and has everything of it removed."""

    def shell(self, script: str) -> str:
        """What a shell script prints in the container; it has to succeed."""
        done = self.exec("/bin/sh", "-c", script)
        assert done.code == 0, f"{script}: {done}"
        return done.out

    def wait_log(self, text: str, stream: str = "stdout") -> str:
        """Until the log has the text; the log."""
        wait_until(
            lambda: text in self.log(stream),
            PATIENCE_S,
            lambda: f"{text!r} in {self.log(stream)[-2000:]!r}; {self.story()}",
        )
        return self.log(stream)

    def wait_running(self) -> None:
        """Until it runs."""

        def runs() -> bool:
            assert self.state != "dead", self.story()
            return self.state == "running"

        wait_until(runs, 60, self.story)

    def failure(self) -> str:
        """What the user is told once the task is dead."""
        wait_until(lambda: self.state == "dead", PATIENCE_S, self.story)
        return self.story()


class Cluster(abc.ABC):
    """A host with the driver on it.

    Attributes:
        base: a directory of the host's own, short since sockets lie below it. In it are the
            driver's state, the host volume "s1" and the profiles that jobs may name.
    """

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="cd-acc-", dir="/run"))
        for name in (VOLUME, PROFILES):
            (self.base / name).mkdir()

    def own_config(self) -> dict[str, str]:
        """What of the driver's config is this host's."""
        return {
            "state_dir": str(self.base / "state"),
            "seccomp_profile_dir": str(self.base / PROFILES),
        }

    def remove_base(self) -> None:
        """The last step of `close`: nothing may be mounted in it any more."""
        left = mounted.detach_below(self.base)
        shutil.rmtree(self.base, ignore_errors=True)
        assert left == [], f"mounts were left: {left}"

    @abc.abstractmethod
    def start(self, job: str, **variables: str) -> Task:
        """Takes up a job of `example/`; its task may not run yet, or may have failed."""

    @abc.abstractmethod
    def crash(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """SIGKILL to the host and the plugin, as far as there are two; both come back.

        Args:
            meanwhile: is called while neither is there.
        """

    @abc.abstractmethod
    def restart(self, **config: Any) -> None:
        """Ends all and starts another host, with that much more in the driver's config."""

    @abc.abstractmethod
    def clean(self) -> None:
        """Purges the tasks that a test has left."""

    @abc.abstractmethod
    def close(self) -> None:
        """Ends the host and what belongs to it."""

    def run(self, job: str, **variables: str) -> Task:
        """As `start`, and its task runs."""
        task = self.start(job, **variables)
        task.wait_running()
        return task

    def failure(self, job: str, **variables: str) -> str:
        """What the user is told of a job whose task cannot be started; it is purged."""
        task = self.start(job, **variables)
        story = task.failure()
        task.purge()
        return story


def example(name: str) -> Path:
    """The path of a job file."""
    return EXAMPLES / f"{name}.nomad"
