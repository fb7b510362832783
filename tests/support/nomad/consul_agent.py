"""A real Consul agent, server and client together, in a network of the test's own."""

from __future__ import annotations

import json
import shutil
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.daemons.daemon import Daemon
from tests.support.kernel.own_network import OwnNetwork
from tests.support.waiting import slowed, wait_until

_CONFIG = """\
node_name = "test"
bind_addr = "127.0.0.1"
client_addr = "127.0.0.1"
disable_update_check = true
ports { dns = -1 }
"""
_HTTP = "http://127.0.0.1:8500"


class ConsulAgent(Daemon):
    """A Consul of a `with` block, at Consul's usual ports.

    Args:
        binary: path of a `consul`.
        network: the network of the agent.

    Attributes:
        path: a file of the name `consul`, for other programs' PATH.
    """

    program = "consul"

    def __init__(self, binary: Path, network: OwnNetwork) -> None:
        super().__init__(Path(tempfile.mkdtemp(prefix="cd-consul-")))
        self._network = network
        self.path = self.base / "consul"
        self.path.symlink_to(binary)
        self._config = self.base / "agent.hcl"
        self._config.write_text(_CONFIG)
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), network.http_handler()
        )

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Sends a request to the HTTP API and returns the parsed answer.

        Raises:
            OSError: nobody answers, or the answer is a failure.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{_HTTP}{path}", data=data, method=method)
        with self._opener.open(request, timeout=slowed(20)) as answer:
            return json.loads(answer.read() or b"null")

    def intend(self, action: str, source: str, destination: str) -> None:
        """Allows or denies connections from one service to another."""
        path = f"/v1/connect/intentions/exact?source={source}&destination={destination}"
        self.request("PUT", path, {"Action": action})

    def instance(self, service: str) -> tuple[str, int]:
        """Waits for the only healthy instance of a service, and returns its address and port."""

        def passing() -> Any:
            return self.request("GET", f"/v1/health/service/{service}?passing=true")

        wait_until(passing, 60, lambda: f"{service}: {self._checks(service)}")
        (found,) = passing()
        return found["Service"]["Address"], found["Service"]["Port"]

    def _checks(self, service: str) -> str:
        return json.dumps(self.request("GET", f"/v1/health/checks/{service}"))[:2000]

    def command(self) -> Sequence[str]:
        """See `Daemon.command`."""
        return self._network.inside(str(self.path), "agent", "-dev", f"-config-file={self._config}")

    def environment(self) -> Mapping[str, str]:
        """See `Daemon.environment`."""
        return {"HOME": str(self.base)}

    def answers(self) -> bool:
        """See `Daemon.answers`."""
        try:
            # Proxies get certificates as soon as the authority is there.
            return bool(self.request("GET", "/v1/connect/ca/roots")["Roots"])
        except OSError:
            return False

    def close(self) -> None:
        """Ends Consul and removes the files."""
        self.kill()
        shutil.rmtree(self.base, ignore_errors=True)
