"""A real Consul agent, server and client together, in a network of the test's own."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.kernel.own_network import OwnNetwork
from tests.support.waiting import wait_until

_CONFIG = """\
node_name = "test"
bind_addr = "127.0.0.1"
client_addr = "127.0.0.1"
disable_update_check = true
ports { dns = -1 }
"""
_HTTP = "http://127.0.0.1:8500"


class ConsulAgent:
    """A Consul of a `with` block, at Consul's usual ports.

    Args:
        binary: path of a `consul`.
        network: the network of the agent.

    Attributes:
        program: the path of a file of the name `consul`, for other programs' PATH.
    """

    def __init__(self, binary: Path, network: OwnNetwork) -> None:
        self._network = network
        self._base = Path(tempfile.mkdtemp(prefix="cd-consul-"))
        self.program = self._base / "consul"
        self.program.symlink_to(binary)
        self._process: subprocess.Popen[bytes] | None = None
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), network.http_handler()
        )

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Sends a request to the HTTP API and returns the parsed answer.

        Raises:
            OSError: nobody answers, or the answer is a failure.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{_HTTP}{path}", data=data, method=method)
        with self._opener.open(request, timeout=20) as answer:
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

    def _start(self) -> None:
        (self._base / "agent.hcl").write_text(_CONFIG)
        command = [str(self.program), "agent", "-dev", f"-config-file={self._base / 'agent.hcl'}"]
        with (self._base / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self._network.inside(*command),
                cwd=self._base,
                env={"HOME": str(self._base)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._leads, 60, lambda: f"Consul is not ready: {self._tail()}")

    def _leads(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"Consul ended at once: {self._tail()}")
        try:
            # Proxies get certificates as soon as the authority is there.
            return bool(self.request("GET", "/v1/connect/ca/roots")["Roots"])
        except OSError:
            return False

    def _tail(self) -> str:
        return (self._base / "log").read_text(errors="replace")[-3000:]

    def _close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
        shutil.rmtree(self._base, ignore_errors=True)
