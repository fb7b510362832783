"""Fixtures of the Nomad tier: a real agent for the session, a plugin host for each test."""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from containerd import syscalls
from tests.nomad.build import NEWER_AGENT, build
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.go_build import BuildError
from tests.support.needs import missing
from tests.support.nomad.api import NomadApi
from tests.support.nomad.go_host import GoHost
from tests.support.nomad.nomad_agent import DRIVER, NomadAgent
from tests.support.nomad.scripts import Scripts
from tests.support.nomad.workload import Workload
from tests.support.plugin.plugin_dir import make_plugin_dir

HOSTS = ("1.5.17", "1.11.0")
_LINES = 120
PROGRAMS = {
    "nomad_agent": ["agent"],
    "newer_agent": [NEWER_AGENT],
    "host_binary": [f"host-{version}" for version in HOSTS],
}
"""The programs to build, by the fixture that needs the programs."""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Builds the programs of the chosen tests before any test's clock: minutes, the first time."""
    if session.config.option.collectonly:
        return
    wanted = {fixture for item in session.items for fixture in getattr(item, "fixturenames", ())}
    for fixture in wanted & PROGRAMS.keys():
        for program in PROGRAMS[fixture]:
            # The fixture builds the program again and reports the error.
            with contextlib.suppress(BuildError):
                build(program)


def built(name: str) -> Path:
    """Builds a Nomad program; without Go skips the test, or fails if REQUIRE has nomad."""
    try:
        return build(name)
    except BuildError as error:
        missing("nomad", str(error), skip_as=brief(name, str(error)))


def brief(name: str, reason: str) -> str:
    """Shortens a skip's reason, which pytest prints: a compiler's pages would bury all else."""
    if "\n" not in reason:
        return reason
    return f"{name} cannot be built; python -m tests.nomad.build {name} says why"


def plugin_config(containerd: ContainerdDaemon, state_dir: Path) -> str:
    """Returns the body of the agent's config block for the driver."""
    return f"""
        containerd_address = "{containerd.address}"
        containerd_namespace = "{containerd.namespace}"
        state_dir = "{state_dir}"
        stats_interval = "1s"
    """


@contextlib.contextmanager
def started_agent(
    binary: Path, containerd: ContainerdDaemon, options: str = "", *, shared: bool = False
) -> Iterator[NomadAgent]:
    """Starts a whole agent with the driver, ready for jobs.

    Args:
        binary: path of a `nomad`.
        containerd: the driver's containerd.
        options: further options of the driver's config block, in HCL.
        shared: True for a directory of the agent whose mounts propagate to tasks and back.
    """
    # A short path: sockets are below the directory.
    with tempfile.TemporaryDirectory(prefix="cd-a-", dir="/run") as folder:
        state_dir = Path(folder)
        config = f"{plugin_config(containerd, state_dir)}\n{options}"
        agent = NomadAgent(binary, config, state_dir)
        make_plugin_dir(agent.plugins)
        if shared:
            syscalls.mount(str(agent.base), str(agent.base), "", syscalls.MS_BIND)
            syscalls.mount("", str(agent.base), "", syscalls.MS_SHARED)
        with agent:
            yield agent


@pytest.fixture(scope="session")
def nomad_agent(containerd: ContainerdDaemon) -> Iterator[NomadAgent]:
    """Starts the agent that most tests share."""
    with started_agent(built("agent"), containerd) as agent:
        yield agent


@pytest.fixture(scope="session")
def newer_agent() -> Path:
    """Builds the agent that asks drivers for their capability to collect logs."""
    program = built(NEWER_AGENT)
    done = subprocess.run([program, "version"], capture_output=True, text=True, check=True)
    if tuple(map(int, re.findall(r"\d+", done.stdout)[:2])) < (1, 6):
        named = " ".join(done.stdout.split()[:2])
        missing("nomad", f"NOMAD_BIN is {named}: name an agent of 1.6 or newer")
    return program


@pytest.fixture
def nomad(nomad_agent: NomadAgent) -> Iterator[NomadApi]:
    """Yields the agent's API; afterwards the agent forgets the test's jobs."""
    if nomad_agent.process is None:
        nomad_agent.start()
    yield nomad_agent.api
    if nomad_agent.process is None:
        nomad_agent.start()
    nomad_agent.forget_jobs()


@pytest.fixture
def work(busybox_image: str) -> Workload:
    """Returns a job of the test."""
    return Workload(busybox_image)


@pytest.fixture(scope="module", params=HOSTS)
def host_binary(request: pytest.FixtureRequest) -> Path:
    """Builds the plugin host of one Nomad version."""
    return built(f"host-{request.param}")


@pytest.fixture
def make_host(host_binary: Path, containerd: ContainerdDaemon) -> Iterator[Callable[[], GoHost]]:
    """Yields a function that creates hosts, not started, and closes them."""
    hosts: list[GoHost] = []
    with tempfile.TemporaryDirectory(prefix="cd-h-", dir="/run") as folder:
        state_dir = Path(folder)

        def make() -> GoHost:
            hosts.append(GoHost(host_binary, plugin_config(containerd, state_dir), state_dir))
            return hosts[-1]

        yield make
        for host in hosts:
            host.close()


@pytest.fixture(scope="module")
def _shared_host(host_binary: Path, containerd: ContainerdDaemon) -> Iterator[GoHost]:
    with tempfile.TemporaryDirectory(prefix="cd-h-", dir="/run") as folder:
        state_dir = Path(folder)
        with GoHost(host_binary, plugin_config(containerd, state_dir), state_dir) as host:
            yield host


@pytest.fixture
def nomad_host(_shared_host: GoHost) -> Iterator[GoHost]:
    """Yields a host with a launched plugin for many tests, and ends each test's tasks."""
    yield _shared_host
    _shared_host.end_all()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the driver's last lines in the agent's log to the report of a failed test."""
    report = yield
    started = getattr(item, "funcargs", {})
    agent = started.get("nomad_agent") or started.get("agent")
    if report.when == "call" and report.failed and isinstance(agent, NomadAgent):
        lines = [line for line in agent.tail(300_000).splitlines() if DRIVER in line]
        report.sections.append(("driver in the agent's log", "\n".join(lines[-_LINES:])))
    return report


@pytest.fixture
def scripts(busybox_image: str) -> Scripts:
    """Returns the scripts of the test."""
    return Scripts(busybox_image)
