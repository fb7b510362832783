"""A real registry on loopback: Debian's docker-registry, plain, with a password, or with TLS."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.support.daemons.daemon import Daemon
from tests.support.needs import missing
from tests.support.registries.ports import free_port
from tests.support.waiting import slowed

_CONFIG = """\
version: 0.1
log: {{ level: warn, accesslog: {{ disabled: true }} }}
storage: {{ filesystem: {{ rootdirectory: {root} }}, delete: {{ enabled: true }} }}
http:
  addr: {address}
{tls}
{auth}
"""


class Registry(Daemon):
    """A registry of a `with` block: `.host` is 127.0.0.1:PORT.

    Args:
        user: the only account, with `password`; without an account all clients may read and write.
        password: see user.
        certificate: PEM files (certificate, key) for TLS.
        port: 0 takes a free port.
        client_ca: with TLS, refuse clients without a certificate of this CA.
    """

    program = "docker-registry"
    start_s = 20

    def __init__(
        self,
        user: str = "",
        password: str = "",
        certificate: tuple[Path, Path] | None = None,
        port: int = 0,
        client_ca: Path | None = None,
    ) -> None:
        self._path = shutil.which("docker-registry")
        if self._path is None:
            missing("containerd", "docker-registry is not installed")
        self.host = f"127.0.0.1:{port or free_port()}"
        self._account = (user, password)
        self._certificate = certificate
        self._client_ca = client_ca
        super().__init__(Path(tempfile.mkdtemp(prefix="cd-registry-")))

    def command(self) -> Sequence[str]:
        """Writes the configuration, and returns the command of the registry."""
        config = self.base / "config.yml"
        config.write_text(
            _CONFIG.format(
                root=self.base / "data", address=self.host, tls=self._tls(), auth=self._auth()
            )
        )
        return [str(self._path), "serve", str(config)]

    def close(self) -> None:
        """Ends the registry and removes the images; between `stop` and `start` the images stay."""
        self.stop()
        shutil.rmtree(self.base, ignore_errors=True)

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
        path = self.base / "htpasswd"
        path.write_text(done.stdout)
        return f"auth: {{ htpasswd: {{ realm: test, path: {path} }} }}"

    def answers(self) -> bool:
        """See `Daemon.answers`."""
        with contextlib.suppress(OSError), socket.create_connection(tuple_of(self.host), timeout=1):
            if self._certificate is not None:
                return True
            connection = http.client.HTTPConnection(self.host, timeout=slowed(5))
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
