"""Record of a run: objects outside of containerd, recorded before their creation.

The dev host may be killed at any moment. The record then has no live owner, and the next run or
`containerd-driver gc` removes the recorded objects, see `plugin.host.run.sweep`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.model.node import Node
from actors.model.nomad import PortMapping
from actors.model.ownership import RUN
from actors.orphans import peers
from actors.orphans.peers import Peer, Presence
from plugin.host.run.alloc_plan import Alloc
from proto.errors import DriverError
from proto.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocTrace:
    """An allocation in a record; `netns` and `bridge` are empty without a namespace or a bridge."""

    id: str
    label: str
    netns: str
    ports: tuple[PortMapping, ...]
    bridge: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTrace:
    """The last record of a run.

    Attributes:
        name: name of the run.
        pid: pid of the run's process, for people.
        since: time of the last record, in seconds since the epoch.
        containerd: containerd's address and namespace.
        network: id of the network namespace in which the run created namespaces.
        cni: directories of the CNI plugins.
        root: directory of the allocation directories.
        own_root: True if the run created the root.
        keep: True if the allocation directories stay.
        allocs: the allocations.
    """

    name: str
    pid: int
    since: float
    containerd: tuple[str, str]
    network: str
    cni: tuple[str, ...]
    root: Path
    own_root: bool
    keep: bool
    allocs: tuple[AllocTrace, ...]


class RunRecord:
    """The record of this run.

    If the state directory cannot be written, the run goes on without a record.

    Args:
        node: the node of the tasks; with None, for an unknown node, the run has no record.
        note: shows the reason for a missing record.
        cni: see RunTrace.
        root: see RunTrace.
        own_root: see RunTrace.
        keep: see RunTrace.
    """

    def __init__(
        self,
        node: Node | None,
        note: Callable[[str], None],
        *,
        cni: Sequence[str],
        root: Path,
        own_root: bool,
        keep: bool,
    ) -> None:
        self._presence: Presence | None = None
        self._fields: dict[str, object] = {
            "cni": list(cni),
            "root": str(root),
            "own_root": own_root,
            "keep": keep,
        }
        self._bridges: dict[str, Mapping[str, Any]] = {}
        self._lock = threading.Lock()
        if node is None:
            return
        self._fields |= {"place": containerd_of(node), "network": own_network()}
        try:
            self._presence = Presence(node.state_dir, RUN)
        except DriverError as error:
            note(f"the run has no record, and a kill would leave objects behind: {error}")

    @property
    def name(self) -> str:
        """The name of the run, the node id of its tasks; empty without a record."""
        return self._presence.name if self._presence is not None else ""

    def begin(self, allocs: Sequence[Alloc]) -> None:
        """Records allocations before their creation.

        Raises:
            DriverError: the state directory is full.
        """
        self._fields["allocs"] = [
            {
                "id": alloc.id,
                "label": alloc.label,
                "netns": alloc.netns,
                "ports": [dataclasses.asdict(port) for port in alloc.ports],
            }
            for alloc in allocs
        ]
        self._write()

    def bridged(self, alloc_id: str, trace: Mapping[str, Any]) -> None:
        """Records the state of an allocation's attachment to the bridge; from any thread.

        Raises:
            DriverError: the state directory is full.
        """
        with self._lock:
            self._bridges[alloc_id] = trace
            self._write()

    def _write(self) -> None:
        if self._presence is not None:
            self._presence.publish(**self._fields, bridges=self._bridges)

    def end(self, *, clean: bool) -> None:
        """Ends the record: removes the record of a clean run, leaves another record to a sweep."""
        if self._presence is not None:
            self._presence.withdraw() if clean else self._presence.close()


def dead_runs(node: Node) -> list[Peer]:
    """Returns the records of killed runs. Reads small files."""
    return [
        peer for peer in peers.peers(node.state_dir) if peer.name.startswith(RUN) and not peer.alive
    ]


def read_trace(peer: Peer) -> RunTrace | None:
    """Returns the record of a run; None for a record in the form of another release."""
    fields = peer.published
    with contextlib.suppress(KeyError, TypeError, ValueError):
        address, namespace = fields["place"]
        return RunTrace(
            name=peer.name,
            pid=int(fields["pid"]),
            since=peer.since,
            containerd=(str(address), str(namespace)),
            network=str(fields["network"]),
            cni=tuple(map(str, fields["cni"])),
            root=Path(fields["root"]),
            own_root=fields["own_root"] is True,
            keep=fields["keep"] is True,
            allocs=tuple(_alloc(entry, fields["bridges"]) for entry in fields["allocs"]),
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


def containerd_of(node: Node) -> tuple[str, str]:
    """Returns containerd's address and namespace."""
    return node.containerd.address, node.namespace


def own_network() -> str:
    """Returns the id of this process's network namespace, by device and inode."""
    status = os.stat("/proc/self/ns/net")  # noqa: PTH116 - follows the link
    return f"{status.st_dev}:{status.st_ino}"
