"""The agent of the comparison with all drivers that this machine has."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.peers.daemons import AbsentError, Dockerd, PodmanService
from tests.nomad.build import NEWER_AGENT, build
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.nomad.nomad_agent import DRIVER, NomadAgent
from tests.support.plugin.plugin_dir import make_plugin_dir
from tests.support.registries import images
from tests.support.registries.registry import Registry
from tests.support.waiting import wait_until

OURS, DOCKER, PODMAN, RAW_EXEC = "this driver", "docker", "podman", "`raw_exec`"
COLUMNS = (OURS, DOCKER, PODMAN, RAW_EXEC)
_PODMAN_PLUGIN = "nomad-driver-podman"
# Podman's own limits can be above the machine's limits, and then no container starts.
_PODMAN_LIMITS = {"nofile": "1024:1024", "nproc": "4096:4096"}
_HEALTHY_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A driver of the comparison.

    Args:
        column: header of the driver's column.
        driver: the driver's name in a job.
        config: the driver's part of a job, without the command.
        block: the driver's plugin block of the agent.
        version: version of the daemon behind the driver.
    """

    column: str
    driver: str
    block: str
    config: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""

    def task(self, script: str) -> dict[str, Any]:
        """Returns the driver's part of a job that runs a shell script."""
        return {**self.config, "command": "/bin/sh", "args": ["-c", script]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """The drivers on one agent, and the reasons of absent drivers by column.

    `nomad` is the agent's version.
    """

    agent: NomadAgent
    nomad: str
    peers: list[Peer]
    absent: dict[str, str]


class _Agent(NomadAgent):
    """An agent with several drivers, and with the usual log level."""

    log_level = "INFO"

    def __init__(self, binary: Path, config: str, state_dir: Path, blocks: str) -> None:
        self._blocks = blocks
        super().__init__(binary, config, state_dir)

    def plugin_blocks(self, plugin_config: str | None) -> str:
        """Returns the blocks of all drivers."""
        return f"{super().plugin_blocks(plugin_config)}\n{self._blocks}"


@contextlib.contextmanager
def field_of(columns: Collection[str], options: Mapping[str, str]) -> Iterator[Field]:
    """Starts the daemons of the wanted drivers and an agent, for a `with` block.

    A driver that cannot run here is in `absent`, with the reason.

    Args:
        columns: the wanted drivers.
        options: further options of this driver's plugin block, as HCL.

    Raises:
        BuildError: no agent can be built.
    """
    binary = build(NEWER_AGENT)
    with contextlib.ExitStack() as stack:
        containerd = stack.enter_context(ContainerdDaemon())
        registry = stack.enter_context(Registry())
        # Short: sockets are below the directory.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cd-a-", dir="/run"))
        image = images.build([images.busybox_layer()], {"Cmd": ["/bin/sh"]})
        reference = images.push(registry.host, "busybox", "1", image)
        config = (
            f'containerd_address = "{containerd.address}"\n'
            f'containerd_namespace = "{containerd.namespace}"\nstate_dir = "{folder}"\n'
        )
        config += "\n".join(f"{name} = {value}" for name, value in options.items())
        peers = [
            Peer(
                column=OURS,
                driver=DRIVER,
                block="",  # the agent's own class has the block
                config={"image": reference},
                version=f"containerd {containerd.version}",
            )
        ]
        absent: dict[str, str] = {}
        for column, start in ((DOCKER, _docker), (PODMAN, _podman)):
            if column in columns:
                try:
                    peers.append(start(stack, reference))
                except AbsentError as error:
                    absent[column] = str(error)
        peers.append(_raw_exec())
        blocks = "\n".join(peer.block for peer in peers)
        agent = _Agent(binary, config, Path(folder), blocks)
        make_plugin_dir(agent.plugins)
        if any(peer.column == PODMAN for peer in peers):
            shutil.copy(podman_plugin(), agent.plugins / _PODMAN_PLUGIN)
        stack.enter_context(agent)
        chosen = [peer for peer in peers if peer.column in columns]
        yield _healthy(agent, chosen, absent)


def _healthy(agent: NomadAgent, peers: list[Peer], absent: dict[str, str]) -> Field:
    found = []
    for peer in peers:
        try:
            wait_until(partial(_is_healthy, agent, peer.driver), _HEALTHY_S)
        except AssertionError:
            info = agent.api.driver_info(peer.driver)
            reason = info.get("HealthDescription") or "the agent does not detect the driver"
            absent[peer.column] = f"{peer.driver} is not healthy: {reason}"
        else:
            found.append(peer)
    version = (agent.api.node() or {}).get("Attributes", {}).get("nomad.version", "")
    return Field(agent=agent, nomad=version, peers=found, absent=absent)


def _is_healthy(agent: NomadAgent, driver: str) -> bool:
    return bool(agent.api.driver_info(driver).get("Healthy"))


def _block(name: str, config: str) -> str:
    return f'plugin "{name}" {{\n  config {{\n{config}\n  }}\n}}\n'


def _raw_exec() -> Peer:
    return Peer(column=RAW_EXEC, driver="raw_exec", block=_block("raw_exec", "enabled = true"))


def _docker(stack: contextlib.ExitStack, image: str) -> Peer:
    daemon = stack.enter_context(Dockerd(image))
    # Without `gc` the driver would remove the image after the first task.
    config = f'endpoint = "{daemon.address}"\nvolumes {{ enabled = true }}\ngc {{ image = false }}'
    return Peer(
        column=DOCKER,
        driver="docker",
        block=_block("docker", config),
        config={"image": image, "network_mode": "none"},
        version=f"docker {daemon.version()}",
    )


def _podman(stack: contextlib.ExitStack, image: str) -> Peer:
    podman_plugin()
    daemon = stack.enter_context(PodmanService(image))
    return Peer(
        column=PODMAN,
        driver="podman",
        block=_block(_PODMAN_PLUGIN, f'socket_path = "{daemon.address}"'),
        config={"image": image, "network_mode": "none", "ulimit": [_PODMAN_LIMITS]},
        version=f"podman {daemon.version()}",
    )


def podman_plugin() -> str:
    """Returns the path of podman's driver.

    Raises:
        AbsentError: neither NOMAD_DRIVER_PODMAN nor PATH has the program.
    """
    given = os.environ.get("NOMAD_DRIVER_PODMAN", "")
    if found := shutil.which(given or _PODMAN_PLUGIN):
        return found
    where = f"NOMAD_DRIVER_PODMAN={given} is no program" if given else "not on PATH"
    raise AbsentError(
        f"{_PODMAN_PLUGIN}: {where}. Build the program from github.com/hashicorp/{_PODMAN_PLUGIN}"
        " with `go build`, and name its path in NOMAD_DRIVER_PODMAN"
    )
