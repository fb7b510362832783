"""A network namespace of a test, with bridges, rules and ports of the test alone."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from containerd import syscalls
from plugin.host.network import namespaces
from tests.support.waiting import slowed

_FETCH = """\
import sys, urllib.request
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
sys.stdout.write(direct.open(sys.argv[1], timeout=5).read().decode())
"""


class OwnNetwork:
    """A namespace of a `with` block: loopback alone at first, removed at the end.

    Commands enter the network namespace alone. `ip netns exec` would also give commands a mount
    namespace of their own; containerd would not see network namespaces that are made there.
    """

    def __init__(self) -> None:
        self.name = f"cdtest-{uuid.uuid4().hex[:8]}"

    def __enter__(self) -> Self:
        namespaces.add([self.name])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        namespaces.remove([self.name])

    def inside(self, *command: str) -> list[str]:
        """Returns the command that runs `command` inside."""
        return ["nsenter", f"--net={namespaces.path(self.name)}", *command]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command inside, to its end."""
        return subprocess.run(
            self.inside(*command), capture_output=True, text=True, check=False, timeout=slowed(60)
        )

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Starts a command inside."""
        return subprocess.Popen(self.inside(*command), text=True, **options)

    def fetch(self, address: str, path: str = "/") -> str:
        """Returns the page of a web server, or an empty text without an answer."""
        return self.run(sys.executable, "-I", "-c", _FETCH, f"http://{address}{path}").stdout

    def connect(self, address: tuple[str, int], timeout_s: float | None) -> socket.socket:
        """Connects inside; a socket stays in the network of its creation."""

        def inside() -> socket.socket:
            descriptor = os.open(namespaces.path(self.name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                syscalls.setns(descriptor, syscalls.CLONE_NEWNET)
            finally:
                os.close(descriptor)
            return socket.create_connection(address, timeout_s)

        return syscalls.in_a_thread_of_its_own(inside)

    def http_handler(self) -> urllib.request.HTTPHandler:
        """Returns a handler for urllib's openers that sends requests inside."""
        connect = self.connect

        class Connection(http.client.HTTPConnection):
            def connect(self) -> None:
                self.sock = connect((self.host, self.port), self.timeout)

        class Handler(urllib.request.HTTPHandler):
            def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
                return self.do_open(Connection, request)

        return Handler()

    def links(self) -> list[str]:
        """Lists the names of the network interfaces."""
        lines = self.run("busybox", "ip", "-o", "link").stdout.splitlines()
        return [line.split(": ")[1].partition("@")[0] for line in lines]

    def join(self, other: OwnNetwork, own: str, theirs: str) -> None:
        """Lays a cable to another network, with a /24 address at each end."""
        for words in (
            f"link add cable type veth peer name cable netns {other.name}",
            f"addr add {own}/24 dev cable",
            "link set cable up",
        ):
            self.must("ip", *words.split())
        other.must("ip", "addr", "add", f"{theirs}/24", "dev", "cable")
        other.must("ip", "link", "set", "cable", "up")

    def must(self, *command: str) -> None:
        """Runs a command inside that must succeed."""
        done = self.run(*command)
        assert done.returncode == 0, (command, done.stderr)

    def rules(self) -> str:
        """Returns all rules of iptables."""
        return self.run("iptables-save").stdout
