"""What a run makes outside of containerd, written down before it is made.

The host may be killed at any moment. Its record then has no owner any more, and the next run or
`containerd-driver gc` removes what it names: `plugin.host.run.sweep`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.model.node import Node
from actors.model.nomad import PortMapping
from actors.model.ownership import RUN
from actors.orphans.peers import Peer, Presence
from plugin.host.run.alloc_plan import Alloc
from proto.errors import DriverError


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocTrace:
    """One allocation as its run left it; netns is empty where it has none, bridge where that."""

    id: str
    label: str
    netns: str
    ports: tuple[PortMapping, ...]
    bridge: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTrace:
    """What a run said last.

    Attributes:
        name: the run's.
        pid: of its process, for people.
        since: seconds of the epoch, of its last word.
        place: containerd's address and namespace.
        network: the network namespace in which it made its own ones.
        cni: where its CNI plugins were.
        root: where its allocations lie.
        own_root: whether it made that directory itself.
        keep: whether allocations are to stay.
        allocs: its allocations.
    """

    name: str
    pid: int
    since: float
    place: tuple[str, str]
    network: str
    cni: tuple[str, ...]
    root: Path
    own_root: bool
    keep: bool
    allocs: tuple[AllocTrace, ...]


class RunRecord:
    """The record of this run. Where the state directory takes none, it runs without.

    Args:
        node: where the plugin makes the tasks; None where that is unknown, and there is no record.
        tell: hears why there is no record.
        says: fields of RunTrace.
    """

    def __init__(self, node: Node | None, tell: Callable[[str], None], **says: object) -> None:
        self._presence: Presence | None = None
        self._says = dict(says)
        self._bridges: dict[str, Mapping[str, Any]] = {}
        self._lock = threading.Lock()
        if node is None:
            return
        self._says |= {"place": place(node), "network": own_network()}
        try:
            self._presence = Presence(node.state_dir, RUN)
        except DriverError as error:
            tell(f"if this run is killed, nothing will sweep up after it: {error}")

    @property
    def name(self) -> str:
        """The run's name, which its tasks have for their node; empty without a record."""
        return self._presence.name if self._presence is not None else ""

    def begin(self, allocs: Sequence[Alloc]) -> None:
        """Writes down what is about to be made.

        Raises:
            DriverError: the state directory is full.
        """
        self._says["allocs"] = [
            {
                "id": alloc.id,
                "label": alloc.label,
                "netns": alloc.netns,
                "ports": [dataclasses.asdict(port) for port in alloc.ports],
            }
            for alloc in allocs
        ]
        self._say()

    def bridged(self, alloc_id: str, trace: Mapping[str, Any]) -> None:
        """How far an allocation is attached to the bridge; from any thread.

        Raises:
            DriverError: the state directory is full.
        """
        with self._lock:
            self._bridges[alloc_id] = trace
            self._say()

    def _say(self) -> None:
        if self._presence is not None:
            self._presence.publish(**self._says, bridges=self._bridges)

    def end(self, *, clean: bool) -> None:
        """The run is over; what is not clean is left to a sweep."""
        if self._presence is not None:
            self._presence.withdraw() if clean else self._presence.close()


def read(peer: Peer) -> RunTrace | None:
    """Returns what a run said; None where this release does not understand it."""
    says = peer.published
    with contextlib.suppress(KeyError, TypeError, ValueError):
        address, namespace = says["place"]
        return RunTrace(
            name=peer.name,
            pid=int(says["pid"]),
            since=peer.since,
            place=(str(address), str(namespace)),
            network=str(says["network"]),
            cni=tuple(map(str, says["cni"])),
            root=Path(says["root"]),
            own_root=says["own_root"] is True,
            keep=says["keep"] is True,
            allocs=tuple(_alloc(entry, says["bridges"]) for entry in says["allocs"]),
        )
    return None


def _alloc(entry: Mapping[str, Any], bridges: Mapping[str, Any]) -> AllocTrace:
    return AllocTrace(
        id=str(entry["id"]),
        label=str(entry["label"]),
        netns=str(entry["netns"]),
        ports=tuple(PortMapping(**port) for port in entry["ports"]),
        bridge=dict(bridges.get(entry["id"]) or {}),
    )


def place(node: Node) -> tuple[str, str]:
    """Which containers a run's are."""
    return node.containerd.address, node.namespace


def own_network() -> str:
    """The network namespace that this process is in, as the kernel tells it apart."""
    found = os.stat("/proc/self/ns/net")  # noqa: PTH116 - what the link leads to
    return f"{found.st_dev}:{found.st_ino}"
