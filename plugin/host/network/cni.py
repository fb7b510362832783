"""Bridge networks by the CNI plugins, in the chain that a Nomad client uses.

A plugin is a program: what to do in its environment, its configuration on stdin, a result or an
error as JSON on stdout. Each gets the result of the one before it as prevResult; DEL goes through
them backwards with the last result (CNI specification 0.4.0, which every plugin still speaks).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.files import tree_removal
from actors.model.nomad import PortMapping
from actors.processes import child_process, short_program
from plugin.host.network import iptables, namespaces
from plugin.host.network.ports import inside
from proto.errors import Code, DriverError

NETWORK = "containerd-driver"
BRIDGE = "ctdriver0"
SUBNET = "172.26.80.0/20"
"""The one after Nomad's own, so that both may be on one machine."""
INTERFACE = "eth0"
STATE = Path("/run/nomad-driver-containerd/cni")

_VERSION = "0.4.0"
_PLUGIN_S = 60.0
_PROTOCOLS = ("tcp", "udp")
_PROGRAMS = ("loopback", "bridge", "host-local", "firewall", "portmap")
_ADVICE = "containerd-driver doctor tells what a bridge network needs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """The allocation's end of a bridge network."""

    interface: str
    address: str


class BridgeNetwork:
    """The machine's bridge network of embedded hosts; all of them share it. Its methods block.

    Args:
        directories: where plugins are looked for, in order.
        state: where host-local keeps its addresses; gone with the last allocation.
        bridge: the bridge's name; gone with the last allocation too.
        note: is given what `resume` needs, for an allocation, before it comes true.
    """

    def __init__(
        self,
        directories: Sequence[str],
        state: Path = STATE,
        bridge: str = BRIDGE,
        note: Callable[[str, Mapping[str, Any]], object] = lambda _, __: None,
    ) -> None:
        self._directories = tuple(directories)
        self._state = state
        self._bridge = bridge
        self._results: dict[str, Any] = {}
        self._allowed: dict[str, str] = {}
        self._note = note

    def check(self) -> None:
        """Whether all programs are there.

        Raises:
            DriverError: code UNSUPPORTED, with what to install.
        """
        missing = [name for name in _PROGRAMS if self._find(name) is None]
        if missing:
            raise DriverError(
                f'network mode "bridge": no CNI plugin {", ".join(missing)} in'
                f" {' or '.join(self._directories)}",
                resolution="apt-get install containernetworking-plugins, or give --cni-path",
                code=Code.UNSUPPORTED,
            )
        if iptables.find() is None:
            raise DriverError(
                'network mode "bridge": the CNI plugins need iptables',
                resolution="apt-get install iptables",
                code=Code.UNSUPPORTED,
            )

    def add(self, alloc_id: str, netns: str, ports: Sequence[PortMapping]) -> Attached:
        """Attaches a namespace. After a failure too, `delete` has to follow.

        Raises:
            DriverError: which plugin said what.
        """
        with self._locked():
            self._tell(alloc_id)
            for plugin in self._chain():
                config = self._config(plugin, alloc_id, ports)
                self._results[alloc_id] = self._call("ADD", config, alloc_id, netns)
                self._tell(alloc_id)
            end = _attached(self._results[alloc_id])
            if iptables.needed(ports):
                self._allowed[alloc_id] = end.address
                self._tell(alloc_id)
                iptables.allow(alloc_id, end.address)
        return end

    def resume(self, alloc_id: str, trace: Mapping[str, Any]) -> None:
        """Takes over an allocation of a host that is gone, for `delete`."""
        if isinstance(trace.get("result"), dict):
            self._results[alloc_id] = trace["result"]
        if trace.get("allowed"):
            self._allowed[alloc_id] = str(trace["allowed"])

    def _tell(self, alloc_id: str) -> None:
        result, allowed = self._results.get(alloc_id), self._allowed.get(alloc_id, "")
        self._note(alloc_id, {"result": result, "allowed": allowed})

    def delete(self, alloc_id: str, netns: str, ports: Sequence[PortMapping]) -> list[DriverError]:
        """Detaches a namespace; every plugin is asked, whatever the ones before it said.

        One that is gone already is an empty name to them, as the specification allows. The bridge
        plugin then leaves the masquerading, and with the namespace it takes missing chains for a
        failure: so it is asked again without.
        """
        there = namespaces.is_one(netns)
        failures: list[DriverError] = []

        def tried(work: Callable[..., object], *arguments: object) -> None:
            try:
                work(*arguments)
            except DriverError as error:
                failures.append(error)

        with self._locked():
            if alloc_id in self._allowed:
                tried(iptables.forget, alloc_id, self._allowed.pop(alloc_id))
            for plugin in reversed(self._chain()):
                config = self._config(plugin, alloc_id, ports)
                if plugin["type"] == "bridge":
                    tried(self._leave_bridge, config, alloc_id, netns if there else "")
                else:
                    tried(self._call, "DEL", config, alloc_id, netns if there else "")
            self._results.pop(alloc_id, None)
            if not self._addresses():
                tree_removal.remove(self._state)
                tried(namespaces.remove_link, self._bridge)
        return failures

    def _leave_bridge(self, config: dict[str, Any], alloc_id: str, netns: str) -> None:
        if netns:
            with contextlib.suppress(DriverError):
                self._call("DEL", config, alloc_id, netns)
                return
        self._call("DEL", config, alloc_id, "")
        iptables.forget_masquerading(NETWORK, alloc_id)

    def _chain(self) -> list[dict[str, Any]]:
        """The plugins' configurations in their order."""
        bridge = {
            "type": "bridge",
            "bridge": self._bridge,
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "forceAddress": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": SUBNET}]],
                "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": str(self._state),
            },
        }
        return [
            {"type": "loopback"},
            bridge,
            {"type": "firewall", "backend": "iptables"},
            {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
        ]

    def _config(
        self, plugin: dict[str, Any], alloc_id: str, ports: Sequence[PortMapping]
    ) -> dict[str, Any]:
        config = {"cniVersion": _VERSION, "name": NETWORK, **plugin}
        if "portMappings" in plugin.get("capabilities", {}):
            config["runtimeConfig"] = {"portMappings": _mappings(ports)}
        if alloc_id in self._results:
            config["prevResult"] = self._results[alloc_id]
        return config

    def _call(self, command: str, config: dict[str, Any], alloc_id: str, netns: str) -> Any:
        name = str(config["type"])
        path = self._find(name)
        if path is None:
            raise _failed(name, command, "it is not there any more")
        env = {
            **child_process.BASE_ENVIRONMENT,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": alloc_id,
            "CNI_NETNS": netns,
            "CNI_IFNAME": INTERFACE,
            "CNI_PATH": ":".join(self._directories),
        }
        ended = short_program.run([path], question=json.dumps(config), env=env, timeout_s=_PLUGIN_S)
        try:
            answer = json.loads(ended.stdout) if ended.stdout.strip() else None
        except (ValueError, RecursionError):
            answer = None
        if ended.status != 0:
            raise _failed(name, command, _reason(answer, ended))
        if command == "ADD" and not isinstance(answer, dict):
            raise _failed(name, command, "it gave no result")
        return answer

    def _find(self, name: str) -> str | None:
        return shutil.which(name, path=":".join(self._directories))

    def _addresses(self) -> list[Path]:
        """The files of host-local, one for each address in use."""
        home = self._state / NETWORK
        return [entry for entry in home.glob("*") if entry.name[:1].isdecimal()]

    @contextlib.contextmanager
    def _locked(self) -> Generator[None, None, None]:
        """One host at a time: plugins race over the bridge, and the last to go removes it."""
        while True:
            for directory in (self._state.parent, self._state):
                directory.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(self._state, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if _is_at(descriptor, self._state):
                    yield
                    return
            finally:
                os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether it is still this path; another host may have removed it before we had the lock."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _mappings(ports: Sequence[PortMapping]) -> list[dict[str, Any]]:
    """A port says nothing of its protocol; a Nomad client publishes it for both."""
    return [
        {
            "hostPort": port.value,
            "containerPort": inside(port),
            "protocol": protocol,
            "hostIP": port.host_ip,
        }
        for port in ports
        for protocol in _PROTOCOLS
    ]


def _attached(result: dict[str, Any]) -> Attached:
    for entry in result.get("ips") or []:
        address = str(entry.get("address", "")).partition("/")[0]
        if address:
            return Attached(interface=INTERFACE, address=address)
    raise _failed("bridge", "ADD", "it gave no address")


def _reason(answer: Any, ended: short_program.Ended) -> str:
    if isinstance(answer, dict) and answer.get("msg"):
        return ": ".join(str(answer[key]) for key in ("msg", "details") if answer.get(key))
    return ended.stderr.strip() or f"status {ended.status}"


def _failed(name: str, command: str, reason: str) -> DriverError:
    return DriverError(
        f"the CNI plugin {name} failed at {command}",
        details=reason[:2000],
        resolution=_ADVICE,
        code=Code.INTERNAL,
    )
