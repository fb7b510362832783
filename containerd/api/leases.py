"""containerd's service Leases: protection of objects that nothing refers to yet."""

from __future__ import annotations

import time
from collections.abc import Mapping

from containerd.api import methods
from containerd.api.calls import CALL_S, AsyncCalls
from containerd.api.errors import unless_missing
from containerd.api.records import LeaseRecord
from proto.containerd import leases_pb2
from proto.errors import Code, DriverError

# containerd's type of a whole blob; a blob that is still being written is of type "ingests".
_BLOB = "content"


class Leases:
    """Leases of a namespace. A clean-up can be repeated: a missing lease is no failure."""

    def __init__(self, call: AsyncCalls) -> None:
        self._call = call

    async def create(self, id: str, *, expire_s: float, labels: Mapping[str, str]) -> None:
        """Creates a lease that containerd drops after expire_s; keeps an existing lease."""
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + expire_s))
        request = leases_pb2.CreateRequest(
            id=id, labels={**labels, "containerd.io/gc.expire": expires}
        )
        try:
            await self._call(methods.LEASE_CREATE, request, f"create lease {id}", timeout_s=CALL_S)
        except DriverError as error:
            if error.code is not Code.ALREADY_EXISTS:
                raise

    async def delete(self, id: str, *, collect: bool = False) -> None:
        """Deletes a lease; containerd may then collect the objects that nothing else refers to.

        Args:
            id: the lease.
            collect: True waits for the collection. With False the objects stay until a later
                collection: containerd's scheduler ignores a deletion during a collection.
        """
        request = leases_pb2.DeleteRequest(id=id, sync=collect)
        await unless_missing(
            self._call(methods.LEASE_DELETE, request, f"delete lease {id}", timeout_s=CALL_S)
        )

    async def list(self, *filters: str) -> tuple[LeaseRecord, ...]:
        """Returns leases that match any filter, in containerd's filter syntax; all without one."""
        request = leases_pb2.ListRequest(filters=filters)
        answer = await self._call(methods.LEASE_LIST, request, "list leases", timeout_s=CALL_S)
        return tuple(
            LeaseRecord(
                id=lease.id,
                labels=dict(lease.labels),
                created_at_ns=lease.created_at.ToNanoseconds(),
            )
            for lease in answer.leases
        )

    async def blobs(self, id: str) -> tuple[str, ...]:
        """Returns the digests of the whole blobs of a lease; none if the lease is missing."""
        request = leases_pb2.ListResourcesRequest(id=id)
        answer = await unless_missing(
            self._call(
                methods.LEASE_RESOURCES, request, f"list resources of lease {id}", timeout_s=CALL_S
            )
        )
        resources = answer.resources if answer is not None else ()
        return tuple(resource.id for resource in resources if resource.type == _BLOB)

    async def add_blob(self, id: str, digest: str) -> None:
        """Adds a blob to a lease."""
        request = leases_pb2.AddResourceRequest(
            id=id, resource=leases_pb2.Resource(id=digest, type=_BLOB)
        )
        await self._call(
            methods.LEASE_ADD, request, f"add blob {digest} to lease {id}", timeout_s=CALL_S
        )
