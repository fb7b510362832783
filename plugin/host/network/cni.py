"""Bridge network built by CNI plugins, in the chain of a Nomad client.

A CNI plugin is a program. The environment has the command, stdin the configuration, and stdout
gets a result or an error as JSON. ADD calls the plugins in order, each with the result of the
previous plugin as prevResult. DEL calls the plugins in reverse order, with the last result (CNI
specification 0.4.0, which every plugin supports).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.files import tree_removal
from actors.model.nomad import PortMapping
from actors.processes import child_process, short_program
from actors.provision import alloc_networks
from plugin.host.network import iptables, namespaces
from plugin.host.network.ports import container_port
from proto.errors import Code, DriverError
from proto.values import dataclass

NETWORK = "containerd-driver"
BRIDGE = "ctdriver0"
SUBNET = "172.26.80.0/20"
"""The subnet after Nomad's subnet, so that a machine may have both networks."""
INTERFACE = "eth0"
STATE = Path("/run/nomad-driver-containerd/cni")

_VERSION = "0.4.0"
_PLUGIN_S = 60.0
_PROTOCOLS = ("tcp", "udp")
_PROGRAMS = ("loopback", "bridge", "host-local", "firewall", "portmap")
_ADVICE = "containerd-driver doctor checks the needs of a bridge network"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """Interface and IPv4 address of an allocation in the bridge network."""

    interface: str
    address: str


class BridgeNetwork:
    """Bridge network of this machine, shared by all dev hosts. All methods block.

    Args:
        directories: directories of the CNI plugins, in the order of the search.
        state: directory of host-local's addresses; removed with the last allocation.
        bridge: name of the bridge; also removed with the last allocation.
        note: stores data for `resume`, by allocation, before a change.
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
        """Checks for all needed programs.

        Raises:
            DriverError: code UNSUPPORTED, a program is missing; with its package.
        """
        missing = [name for name in _PROGRAMS if self._find(name) is None]
        if missing:
            raise DriverError(
                f'network mode "bridge": no CNI plugin {", ".join(missing)} in'
                f" {' or '.join(self._directories)}",
                resolution="apt-get install containernetworking-plugins, or set --cni-path",
                code=Code.UNSUPPORTED,
            )
        if iptables.program() is None:
            raise DriverError(
                'network mode "bridge": the CNI plugins need iptables',
                resolution="apt-get install iptables",
                code=Code.UNSUPPORTED,
            )

    def add(self, alloc_id: str, netns: str, ports: Sequence[PortMapping]) -> Attached:
        """Attaches a namespace; the caller must call `delete` later, also after a failure.

        Args:
            alloc_id: id of the allocation.
            netns: path of the network namespace.
            ports: published ports.

        Raises:
            DriverError: names the failed plugin and the reason.
        """
        with self._locked():
            self._store(alloc_id)
            for plugin in self._chain():
                config = self._config(plugin, alloc_id, ports)
                self._results[alloc_id] = self._call("ADD", config, alloc_id, netns)
                self._store(alloc_id)
            attached = _attached(self._results[alloc_id])
            if iptables.needed(ports):
                self._allowed[alloc_id] = attached.address
                self._store(alloc_id)
                iptables.allow(alloc_id, attached.address)
        return attached

    def resume(self, alloc_id: str, trace: Mapping[str, Any]) -> None:
        """Takes over an allocation of a killed dev host, for `delete`.

        Args:
            alloc_id: id of the allocation.
            trace: the data that `note` got.
        """
        if isinstance(trace.get("result"), dict):
            self._results[alloc_id] = trace["result"]
        if trace.get("allowed"):
            self._allowed[alloc_id] = str(trace["allowed"])

    def _store(self, alloc_id: str) -> None:
        result, allowed = self._results.get(alloc_id), self._allowed.get(alloc_id, "")
        self._note(alloc_id, {"result": result, "allowed": allowed})

    def delete(self, alloc_id: str, netns: str, ports: Sequence[PortMapping]) -> list[DriverError]:
        """Detaches a namespace and returns all failures; a failure stops no later plugin.

        If the namespace is already gone, the plugins get an empty name, as the specification
        allows. The bridge plugin then leaves its masquerading rules. With the namespace the bridge
        plugin fails if chains are missing, and is called again without the namespace.
        """
        if not alloc_networks.is_mounted(Path(netns)):
            netns = ""
        failures: list[DriverError] = []

        def attempt(work: Callable[..., object], *arguments: object) -> None:
            try:
                work(*arguments)
            except DriverError as error:
                failures.append(error)

        with self._locked():
            if alloc_id in self._allowed:
                attempt(iptables.remove, alloc_id, self._allowed.pop(alloc_id))
            for plugin in reversed(self._chain()):
                config = self._config(plugin, alloc_id, ports)
                if plugin["type"] == "bridge":
                    attempt(self._leave_bridge, config, alloc_id, netns)
                else:
                    attempt(self._call, "DEL", config, alloc_id, netns)
            self._results.pop(alloc_id, None)
            if not self._addresses():
                tree_removal.remove(self._state)
                attempt(namespaces.remove_link, self._bridge)
        return failures

    def _leave_bridge(self, config: dict[str, Any], alloc_id: str, netns: str) -> None:
        if netns:
            with contextlib.suppress(DriverError):
                self._call("DEL", config, alloc_id, netns)
                return
        self._call("DEL", config, alloc_id, "")
        iptables.remove_masquerading(NETWORK, alloc_id)

    def _chain(self) -> list[dict[str, Any]]:
        """Returns the configurations of the plugins in the order of ADD."""
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
            raise _failed(name, command, "the program is missing")
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
            raise _failed(name, command, "the plugin returned no result")
        return answer

    def _find(self, name: str) -> str | None:
        return shutil.which(name, path=":".join(self._directories))

    def _addresses(self) -> list[Path]:
        """Returns the files of host-local, a file for each used address."""
        directory = self._state / NETWORK
        return [entry for entry in directory.glob("*") if entry.name[:1].isdecimal()]

    @contextlib.contextmanager
    def _locked(self) -> Generator[None, None, None]:
        """Locks the network against other dev hosts.

        Plugins of two hosts would race, and the last allocation removes the bridge.
        """
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
    """Returns False if another dev host removed the path before this process had the lock."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _mappings(ports: Sequence[PortMapping]) -> list[dict[str, Any]]:
    """Returns mappings for both protocols, as in a Nomad client: a port names no protocol."""
    return [
        {
            "hostPort": port.value,
            "containerPort": container_port(port),
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
    raise _failed("bridge", "ADD", "the plugin returned no address")


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
