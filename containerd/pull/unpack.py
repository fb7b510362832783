"""Unpacking of layers into committed snapshots, each checked against the image's config."""

from __future__ import annotations

import bisect
import re
import secrets
from typing import TYPE_CHECKING

from google.protobuf.field_mask_pb2 import FieldMask

from containerd.api import methods
from containerd.image.oci_image import chain_id
from containerd.pull.calls import SyncCalls
from proto.containerd import content_pb2, diff_pb2, leases_pb2, snapshots_pb2, types_pb2
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from collections.abc import Callable

    from containerd.image.manifests import Descriptor

_DIFF_ID = re.compile(r"sha256:[0-9a-f]{64}")
# A layer of many files takes long. The time limit of the pull ends earlier in practice.
_APPLY_S = 3600.0
# For this media type every release of containerd detects the compression by the bytes. containerd
# does not know the types of all tools, and some tools write types that do not match the bytes.
_ANY_COMPRESSION = "application/vnd.docker.image.rootfs.diff.tar"


class Unpacker:
    """Unpacks one image's layers, lowest first, under the lease of the calls.

    Args:
        calls: calls to containerd, under the pull's lease.
        snapshotter: name of the snapshotter.
        layers: the compressed layers, lowest first.
        diff_ids: digests of the uncompressed layers, by the image's config.

    Raises:
        DriverError: code CORRUPT; layers and diff_ids do not match.
    """

    def __init__(
        self,
        calls: SyncCalls,
        snapshotter: str,
        layers: tuple[Descriptor, ...],
        diff_ids: tuple[str, ...],
    ) -> None:
        if len(layers) != len(diff_ids):
            raise DriverError(
                "image config and manifest do not match",
                details=f"the config has {len(diff_ids)} layers, the manifest {len(layers)}",
                code=Code.CORRUPT,
            )
        for diff_id in diff_ids:
            # A snapshot is looked up by this text, which must not be the name of another snapshot.
            if not _DIFF_ID.fullmatch(diff_id):
                raise DriverError(
                    "the image's config has an invalid layer digest",
                    details=repr(diff_id[:100]),
                    code=Code.CORRUPT,
                )
        self._calls = calls
        self._snapshotter = snapshotter
        self._layers = layers
        self._chains = [chain_id(diff_ids[: count + 1]) for count in range(len(diff_ids))]
        self._diff_ids = diff_ids

    def present(self) -> int:
        """Returns the number of lowest layers with a snapshot. The lease protects the snapshots.

        A snapshot keeps the snapshots of all layers below, so a binary search finds the number.
        """
        count = bisect.bisect_left(self._chains, x=True, key=lambda chain: not self._exists(chain))
        if not count:
            return 0
        chain = self._chains[count - 1]
        resource = leases_pb2.Resource(id=chain, type=f"snapshots/{self._snapshotter}")
        request = leases_pb2.AddResourceRequest(id=self._calls.lease, resource=resource)
        self._calls(methods.LEASE_ADD, request, f"add layer {chain} to the lease")
        # Another client may have removed the snapshot before the lease protected it.
        return count if self._exists(chain) else 0

    def unpack(self, first: int, ready: Callable[[int], None]) -> str:
        """Unpacks the missing layers, and returns the chain id of the topmost layer.

        Args:
            first: the number of lowest layers that have snapshots.
            ready: called with each layer's index; returns when the layer's blob is complete.

        Raises:
            DriverError: CORRUPT for a layer that differs from the config; errors of `ready`.
        """
        for index in range(first, len(self._layers)):
            ready(index)
            # Another pull may have unpacked the same layer meanwhile.
            if not self._exists(self._chains[index]):
                self._apply(index)
        return self._chains[-1] if self._chains else ""

    def _exists(self, chain: str) -> bool:
        request = snapshots_pb2.StatSnapshotRequest(snapshotter=self._snapshotter, key=chain)
        try:
            self._calls(methods.SNAPSHOT_STAT, request, f"look up layer {chain}")
        except DriverError as error:
            if error.code is Code.NOT_FOUND:
                return False
            raise
        return True

    def _apply(self, index: int) -> None:
        layer, diff_id, chain = self._layers[index], self._diff_ids[index], self._chains[index]
        parent = self._chains[index - 1] if index else ""
        key = f"extract-{secrets.token_hex(8)} {chain}"
        prepare = snapshots_pb2.PrepareSnapshotRequest(
            snapshotter=self._snapshotter, key=key, parent=parent
        )
        mounts = self._calls(methods.SNAPSHOT_PREPARE, prepare, f"prepare layer {chain}").mounts
        try:
            request = diff_pb2.ApplyRequest(
                diff=types_pb2.Descriptor(
                    media_type=_ANY_COMPRESSION, digest=layer.digest, size=layer.size
                ),
                mounts=mounts,
            )
            action = f"unpack layer {layer.digest}"
            applied = self._calls(methods.DIFF_APPLY, request, action, _APPLY_S).applied
            _check(layer, applied.digest, diff_id)
            self._commit(chain, key)
        except DriverError:
            self._remove(key)
            raise
        # Other clients trust this label, so only a blob that was unpacked here gets it.
        label_blob(self._calls, layer.digest, {"containerd.io/uncompressed": diff_id})

    def _commit(self, chain: str, key: str) -> None:
        request = snapshots_pb2.CommitSnapshotRequest(
            snapshotter=self._snapshotter, name=chain, key=key
        )
        try:
            self._calls(methods.SNAPSHOT_COMMIT, request, f"keep layer {chain}", _APPLY_S)
        except DriverError as error:
            # Another pull was faster, and has the same layer.
            if error.code is not Code.ALREADY_EXISTS:
                raise
            self._remove(key)

    def _remove(self, key: str) -> None:
        request = snapshots_pb2.RemoveSnapshotRequest(snapshotter=self._snapshotter, key=key)
        try:
            self._calls(methods.SNAPSHOT_REMOVE, request, f"remove snapshot {key}")
        except DriverError:
            return  # containerd collects the snapshot after the end of the lease


def _check(layer: Descriptor, applied: str, diff_id: str) -> None:
    if applied != diff_id:
        raise DriverError(
            f"layer {layer.digest} does not match the image's config",
            details=f"the unpacked layer is {applied}, not {diff_id}",
            resolution="push the image again",
            code=Code.CORRUPT,
        )


def label_blob(calls: SyncCalls, digest: str, labels: dict[str, str]) -> None:
    """Sets labels of a blob, and keeps all other labels."""
    request = content_pb2.UpdateRequest(
        info=content_pb2.Info(digest=digest, labels=labels),
        update_mask=FieldMask(paths=[f"labels.{name}" for name in labels]),
    )
    calls(methods.CONTENT_UPDATE, request, f"label blob {digest}")
