"""Client of containerd: an attribute for each service, and questions about containerd itself.

Every call has a deadline, and every failure is a DriverError. Deleting a missing object and
creating an existing lease are no failures, so that a clean-up can be repeated.
"""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty

from containerd.api import methods, shims
from containerd.api.calls import CALL_S, AsyncCalls
from containerd.api.containers import Containers
from containerd.api.images import Content, Images
from containerd.api.leases import Leases
from containerd.api.records import Deprecation, ShimAddress, Version
from containerd.api.snapshots import Snapshots
from containerd.api.tasks import Tasks
from proto.containerd import introspection_pb2
from proto.errors import DriverError

_AT_ONCE_S = 2.0
DEFAULT_SNAPSHOTTER = "overlayfs"
_SNAPSHOTTER_TYPE = "io.containerd.snapshotter.v1"
_GET_VERSION = "return its version"
_DEPRECATION_PREFIX = "io.containerd.deprecation/"


class Containerd:
    """A containerd and a namespace. An instance belongs to the event loop of its first call.

    Creating an instance connects to nothing. An instance survives restarts of containerd.
    """

    default_snapshotter = DEFAULT_SNAPSHOTTER

    def __init__(self, address: str, namespace: str) -> None:
        self.address = address
        self.namespace = namespace
        self._call = AsyncCalls(address, namespace)
        self._others: dict[str, Containerd] = {}
        self.images = Images(self._call)
        self.content = Content(self._call)
        self.leases = Leases(self._call)
        self.snapshots = Snapshots(self._call)
        self.containers = Containers(self._call)
        self.tasks = Tasks(self._call)

    def within(self, namespace: str) -> Containerd:
        """Returns a client of the same containerd for another namespace."""
        if namespace == self.namespace:
            return self
        if namespace not in self._others:
            self._others[namespace] = Containerd(self.address, namespace)
        return self._others[namespace]

    async def close(self) -> None:
        """Closes the connections, also of clients for other namespaces."""
        for other in self._others.values():
            await other.close()
        await self._call.close()

    async def version(self) -> Version:
        """Returns containerd's version."""
        answer = await self._call(methods.VERSION, Empty(), _GET_VERSION, timeout_s=CALL_S)
        return Version(version=answer.version, revision=answer.revision)

    async def answers(self) -> bool:
        """Returns True if containerd answers within 2 s; False also if nothing listens."""
        try:
            await self._call(methods.VERSION, Empty(), _GET_VERSION, timeout_s=_AT_ONCE_S)
        except DriverError:
            return False
        return True

    async def deprecations(self) -> tuple[Deprecation, ...]:
        """Returns containerd's warnings since the start of containerd; none from old releases."""
        action = "list its deprecations"
        answer = await self._call(methods.SERVER, Empty(), action, timeout_s=CALL_S)
        return tuple(
            Deprecation(id=warning.id.removeprefix(_DEPRECATION_PREFIX), message=warning.message)
            for warning in answer.deprecations
        )

    async def snapshotters(self) -> tuple[str, ...]:
        """Returns the names of all working snapshotters."""
        return tuple(sorted(plugin.id for plugin in await self._snapshotters()))

    async def snapshotter_root(self, name: str) -> str:
        """Returns the data directory of a snapshotter; empty if containerd exports none."""
        named = (plugin for plugin in await self._snapshotters() if plugin.id == name)
        return next((plugin.exports["root"] for plugin in named if "root" in plugin.exports), "")

    async def _snapshotters(self) -> list[introspection_pb2.Plugin]:
        request = introspection_pb2.PluginsRequest(filters=[f"type=={_SNAPSHOTTER_TYPE}"])
        action = "list its snapshotters"
        answer = await self._call(methods.PLUGINS, request, action, timeout_s=CALL_S)
        works = (plugin for plugin in answer.plugins if not plugin.HasField("init_err"))
        return [plugin for plugin in works if plugin.type == _SNAPSHOTTER_TYPE]

    async def shim(self, id: str, pid: int) -> ShimAddress | None:
        """Returns the address of the container's shim; None for a shim that speaks no ttrpc."""
        return shims.find_address(self.address, self.namespace, id, pid)

    def has_shim(self, id: str, pid: int) -> bool:
        """Returns whether the container has a shim that accepts connections."""
        shim = shims.find_address(self.address, self.namespace, id, pid)
        return shim is not None and shims.accepts(shim)
