"""A real registry on loopback: Debian's docker-registry, plain, with a password, or with TLS."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.needs import missing
from tests.support.waiting import wait_until

_CONFIG = """\
version: 0.1
log: {{ level: warn, accesslog: {{ disabled: true }} }}
storage: {{ filesystem: {{ rootdirectory: {root} }}, delete: {{ enabled: true }} }}
http:
  addr: {address}
{tls}
{auth}
"""


def free_port() -> int:
    """Returns a TCP port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Registry:
    """A registry of a `with` block: `.host` is 127.0.0.1:PORT.

    Args:
        user: the only account, with `password`; without an account all clients may read and write.
        password: see user.
        certificate: PEM files (certificate, key) for TLS.
        port: 0 takes a free port.
        client_ca: with TLS, refuse clients without a certificate of this CA.
    """

    def __init__(
        self,
        user: str = "",
        password: str = "",
        certificate: tuple[Path, Path] | None = None,
        port: int = 0,
        client_ca: Path | None = None,
    ) -> None:
        self._program = shutil.which("docker-registry")
        if self._program is None:
            missing("containerd", "docker-registry is not installed")
        self.host = f"127.0.0.1:{port or free_port()}"
        self._account = (user, password)
        self._certificate = certificate
        self._client_ca = client_ca
        self._base = Path(tempfile.mkdtemp(prefix="cd-registry-"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        shutil.rmtree(self._base, ignore_errors=True)

    def start(self) -> None:
        """Starts the registry and returns at the first answer."""
        config = self._base / "config.yml"
        config.write_text(
            _CONFIG.format(
                root=self._base / "data", address=self.host, tls=self._tls(), auth=self._auth()
            )
        )
        with (self._base / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._program), "serve", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._answers, 20, lambda: (self._base / "log").read_text()[-2000:])

    def stop(self) -> None:
        """Ends the registry; the images stay until the context ends."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _tls(self) -> str:
        if self._certificate is None:
            return ""
        certificate, key = self._certificate
        clients = f", clientcas: [{self._client_ca}]" if self._client_ca else ""
        return f"  tls: {{ certificate: {certificate}, key: {key}{clients} }}"

    def _auth(self) -> str:
        user, password = self._account
        if not user:
            return ""
        done = subprocess.run(
            ["htpasswd", "-Bbn", user, password], check=True, capture_output=True, text=True
        )
        path = self._base / "htpasswd"
        path.write_text(done.stdout)
        return f"auth: {{ htpasswd: {{ realm: test, path: {path} }} }}"

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(tuple_of(self.host), timeout=1):
            if self._certificate is not None:
                return True
            connection = http.client.HTTPConnection(self.host, timeout=5)
            try:
                connection.request("GET", "/v2/")
                return connection.getresponse().status in {200, 401}
            finally:
                connection.close()
        return False


def tuple_of(host: str) -> tuple[str, int]:
    """Splits `address:port` into address and port."""
    address, _, port = host.rpartition(":")
    return address, int(port)
