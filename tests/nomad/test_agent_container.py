"""A real Nomad agent in a container of example/agent-container, with the driver inside."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from containerd import syscalls
from tests.nomad.conftest import built, plugin_config
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.daemons.containerd_versions import bin_dir
from tests.support.nomad.leftovers import pids_with, unmount_below
from tests.support.nomad.nomad_agent import NomadAgent
from tests.support.nomad.workload import Workload, goes_on
from tests.support.plugin.plugin_dir import ROOT, command, make_plugin_dir
from tests.support.waiting import wait_until
from tests.support.workers.launcher import worker_pids

pytestmark = [pytest.mark.nomad, pytest.mark.containerd]

RUN_AGENT = ROOT / "example/agent-container/run-agent"
CONTAINER = "nomad-agent"
# Nomad's logmon dies with the container, and loses the lines of the last 100 ms. So the task is
# silent at that moment.
SCRIPT = (
    "trap 'exit 5' TERM; i=0; while true; do echo tick $i; i=$((i+1));"
    " until test -e /alloc/data/go; do sleep 0.05; done; sleep 0.1; done"
)


class ContainerAgent(NomadAgent):
    """An agent in a container.

    Args:
        binary: path of a `nomad`.
        containerd: containerd of the agent's container and of the tasks.
        state_dir: state directory of the driver.
        root: the container's root, which has the programs of this machine.
    """

    def __init__(
        self, binary: Path, containerd: ContainerdDaemon, state_dir: Path, root: Path
    ) -> None:
        super().__init__(binary, plugin_config(containerd, state_dir), state_dir)
        self._address = containerd.address
        self._root = root
        # On some machines these places are mounts of their own, which the root does not have.
        read = {ROOT, binary.parent, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}
        binds = [*(f"src={path},dst={path},options=rbind:ro" for path in sorted(read))]
        binds.append(f"src={containerd.base},dst={containerd.base},options=rbind:rslave:rw")
        path = f"--env=PATH={super().environment()['PATH']}"
        self._options = " ".join(
            ["--rootfs", path, *(f"--mount type=bind,{bind}" for bind in binds)]
        )

    def command(self) -> list[str]:
        """Returns the command of example/agent-container, with the machine's `nomad`."""
        return [str(RUN_AGENT), str(self._root), *super().command()]

    def kill(self, number: int = 9) -> None:
        """Sends a signal to the agent and waits for the end of the container."""
        if self.process is not None:
            if self.process.poll() is None:
                self.ctr("tasks", "kill", "--signal", str(number), CONTAINER)
            self.process.wait(60)
            self.process = None

    def ctr(self, *words: str) -> str:
        """Runs `ctr` in the namespace of the agent's container and returns the output."""
        done = subprocess.run(
            ["ctr", *words],
            env=self.environment(),
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout

    def environment(self) -> Mapping[str, str]:
        """Returns the variables of run-agent and of ctr."""
        path = super().environment()["PATH"]
        return {
            "PATH": f"{folder}:{path}" if (folder := bin_dir()) else path,
            "CONTAINERD_ADDRESS": self._address,
            "CONTAINERD_NAMESPACE": "agents",
            "DATA_DIR": str(self.base),
            "STATE_DIR": str(self.state_dir),
            "OPTIONS": self._options,
        }


@pytest.fixture
def root() -> Iterator[Path]:
    """Yields a writable copy of the machine's root file system, which ends with the test."""
    with tempfile.TemporaryDirectory(prefix="cd-r-", dir="/run") as folder:
        base = Path(folder)
        syscalls.mount("tmpfs", folder, "tmpfs", 0)
        for name in ("root", "upper", "work"):
            (base / name).mkdir()
        layers = f"lowerdir=/,upperdir={base / 'upper'},workdir={base / 'work'}"
        subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", layers, base / "root"], check=True
        )
        try:
            yield base / "root"
        finally:
            unmount_below(base)


@pytest.fixture
def agent(containerd: ContainerdDaemon, root: Path) -> Iterator[ContainerAgent]:
    """Starts an agent in a container."""
    with tempfile.TemporaryDirectory(prefix="cd-a-", dir="/run") as folder:
        state_dir = Path(folder)
        started = ContainerAgent(built("agent"), containerd, state_dir, root)
        make_plugin_dir(started.plugins)
        try:
            with started:
                yield started
        finally:
            unmount_below(state_dir)


def test_a_task_outlives_the_container_of_its_agent(
    agent: ContainerAgent, containerd: ContainerdDaemon, work: Workload
) -> None:
    state_dir = agent.state_dir
    assert state_dir is not None
    options = [f"containerd_address={containerd.address}", f"state_dir={state_dir}"]
    words = [*command(), "doctor", *(word for option in options for word in ("--config", option))]
    said = agent.ctr("tasks", "exec", "--exec-id", "doctor", CONTAINER, *words)
    assert "all directories are shared with containerd" in said
    alloc = agent.api.run(work.job(SCRIPT))
    agent.api.wait_log(alloc, "tick 0")
    before = work.pids()
    agent.kill()
    wait_until(lambda: not pids_with(str(state_dir)), 10, "plugin or launcher live on")
    wait_until(lambda: worker_pids(state_dir) == [], 10, "a worker lives on")
    (agent.alloc_root / alloc / "alloc/data/go").touch()
    agent.start()
    goes_on(agent.api, work, alloc, before)
