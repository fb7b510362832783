"""A real Nomad agent, server and client together, with the driver in the plugin directory."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from plugin.host.network import namespaces
from tests.support.daemons.daemon import Daemon
from tests.support.kernel import mounted
from tests.support.kernel.own_network import OwnNetwork
from tests.support.nomad.api import NomadApi
from tests.support.nomad.leftovers import (
    end_all_with,
    end_cgroups,
    mounts_below,
    pids_with,
    unmount_below,
)
from tests.support.registries.ports import free_port
from tests.support.waiting import wait_until

DRIVER = "containerd-driver"

# Every fingerprinter with requests beyond loopback is off, as is the check for a newer Nomad.
_CONFIG = """\
name = "test"
data_dir = "{base}/data"
plugin_dir = "{base}/plugins"
bind_addr = "127.0.0.1"
log_level = "{log_level}"
disable_update_check = true
disable_anonymous_signature = true
leave_on_interrupt = false
leave_on_terminate = false
ports {{ http = {http} rpc = {rpc} serf = {serf} }}
advertise {{ http = "127.0.0.1" rpc = "127.0.0.1" serf = "127.0.0.1" }}
server {{
  enabled = true
  bootstrap_expect = 1
  num_schedulers = 1
}}
client {{
  enabled = true
  network_interface = "{interface}"
  cpu_total_compute = 8000
  memory_total_mb = 16384
  max_kill_timeout = "120s"
  cni_path = "/usr/lib/cni"
  cni_config_dir = "{base}/cni"
  options = {{
    "fingerprint.denylist" = "env_aws,env_azure,env_digitalocean,env_gce,vault{denied}"
  }}
  {client}
}}
consul {{
  auto_advertise = false
  client_auto_join = false
  server_auto_join = false
}}
telemetry {{
  collection_interval = "1s"
  publish_allocation_metrics = true
}}
{plugins}
"""


class Mesh(NamedTuple):
    """A Consul at the usual ports.

    Attributes:
        interface: interface with the address at which the Nomad agent publishes ports.
        consul: path of a `consul`, which the Nomad agent finds on PATH.
    """

    interface: str
    consul: Path


class NomadAgent(Daemon):
    """An agent, used as `with NomadAgent(…) as agent`.

    `.api`, `.kill()` and `.start()` control the agent.

    Args:
        binary: path of a `nomad`.
        plugin_config: body of the driver's `config` block in HCL; None leaves the driver out.
        state_dir: state directory of the driver, whose processes end with the agent.
        network: network of agent and plugin; None for the machine's network.
        client_block: further text of the agent's client block.
        mesh: Consul of the agent; None for no Consul.
    """

    program = "the agent"
    start_s = 90
    log_level = "DEBUG"

    def __init__(
        self,
        binary: Path,
        plugin_config: str | None,
        state_dir: Path | None = None,
        network: OwnNetwork | None = None,
        client_block: str = "",
        mesh: Mesh | None = None,
    ) -> None:
        super().__init__(Path(tempfile.mkdtemp(prefix="cd-nomad-")), "agent.log")
        self.binary = binary
        self._network = network
        self.plugins = self.base / "plugins"
        self.plugins.mkdir()
        self.state_dir = state_dir
        self._has_driver = plugin_config is not None
        self._mesh = mesh
        self._http = free_port()
        self.cni = self.base / "cni"
        self.cni.mkdir()
        self.api = NomadApi(f"http://127.0.0.1:{self._http}", binary, network)
        (self.base / "agent.hcl").write_text(
            _CONFIG.format(
                base=self.base,
                client=client_block,
                interface=mesh.interface if mesh else "lo",
                denied="" if mesh else ",consul",
                http=self._http,
                rpc=free_port(),
                serf=free_port(),
                log_level=self.log_level,
                plugins=self.plugin_blocks(plugin_config),
            )
        )

    def plugin_blocks(self, plugin_config: str | None) -> str:
        """Returns the plugin blocks of the agent's configuration."""
        if plugin_config is None:
            return 'plugin "raw_exec" {\n  config { enabled = true }\n}\n'
        return f'plugin "{DRIVER}" {{\n  config {{\n{plugin_config}\n  }}\n}}\n'

    @property
    def alloc_root(self) -> Path:
        """Directory in which the client keeps allocation directories."""
        return self.base / "data" / "alloc"

    def command(self) -> Sequence[str]:
        """See `Daemon.command`."""
        command = [str(self.binary), "agent", f"-config={self.base / 'agent.hcl'}"]
        return command if self._network is None else self._network.inside(*command)

    def environment(self) -> Mapping[str, str]:
        """See `Daemon.environment`. The plugin inherits nothing of the tests' environment."""
        path = os.environ.get("PATH", os.defpath)
        if self._mesh is not None:
            path = f"{self._mesh.consul.parent}:{path}"
        return {"PATH": path, "HOME": str(self.base)}

    def answers(self) -> bool:
        """Returns whether the node is ready and the driver healthy."""
        driver = DRIVER if self._has_driver else "raw_exec"
        try:
            node = self.api.node()
            if node is None or node["Status"] != "ready":
                return False
            healthy: bool = self.api.driver_info(driver).get("Healthy", False)
        except (OSError, AssertionError):
            return False
        return healthy

    def plugin_pids(self) -> list[int]:
        """Returns the processes of the driver's plugin."""
        return pids_with(str(self.plugins / DRIVER))

    def close(self) -> None:
        """Ends all jobs, the agent, and everything that the agent or the driver has left."""
        try:
            if self.process is not None and self.process.poll() is None:
                with contextlib.suppress(OSError, AssertionError):
                    self._end_jobs()
                self.kill(signal.SIGTERM)
        finally:
            self.kill()
            for folder in (self.base, self.state_dir):
                if folder is not None:
                    end_all_with(str(folder))
            allocs = [entry.name for entry in self.alloc_root.glob("*")]
            for alloc in allocs:
                end_cgroups(alloc)
            if allocs:  # a killed client removes no network
                namespaces.remove(allocs)
            unmount_below(self.base)
            mounted.detach_below(self.base)
            shutil.rmtree(self.base, ignore_errors=True)

    def forget_jobs(self) -> None:
        """Ends all jobs, and waits until servers and client have removed the allocations.

        A Nomad before 1.9.2 that starts again sends SIGKILL to the pid of each log collector in its
        state, also of ended allocations (hashicorp/nomad#23969). Another process has the pid by
        then: a task of the next test, or a process of another test.
        """
        for job in self.api.jobs():
            self.api.stop_and_wait(job)
        self.api.collect_garbage()
        wait_until(self._has_no_alloc, 30, lambda: f"{list(self.alloc_root.iterdir())} stay")

    def _has_no_alloc(self) -> bool:
        return not self.alloc_root.exists() or not any(self.alloc_root.iterdir())

    def _end_jobs(self) -> None:
        self.forget_jobs()
        # A test may have bound the directory to itself.
        wait_until(lambda: set(mounts_below(self.base)) <= {str(self.base)}, 20)
