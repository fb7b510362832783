"""From layers in the content store to committed snapshots, each checked against the config."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

from google.protobuf.field_mask_pb2 import FieldMask

from containerd.api import methods
from containerd.image import oci_image
from containerd.pull.calls import SyncCalls
from proto.containerd import content_pb2, diff_pb2, snapshots_pb2, types_pb2
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from collections.abc import Callable

    from containerd.image.manifests import Descriptor

_CALL_S = 30.0
_DIFF_ID = re.compile(r"sha256:[0-9a-f]{64}")
# Applying a layer is as long as its files are many; the pull's own time limit bounds it.
_APPLY_S = 3600.0
# For this type containerd of every release looks at the bytes for the compression. It does not
# know each type of each tool, and tools write types that do not fit.
_ANY_COMPRESSION = "application/vnd.docker.image.rootfs.diff.tar"


class Unpacker:
    """Unpacks one image's layers, lowest first, under the lease of the calls."""

    def __init__(self, calls: SyncCalls, snapshotter: str) -> None:
        self._calls = calls
        self._snapshotter = snapshotter

    def unpack(
        self,
        layers: tuple[Descriptor, ...],
        diff_ids: tuple[str, ...],
        ready: Callable[[int], None],
    ) -> str:
        """Unpacks what is not there yet and returns the chain id.

        Args:
            layers: the compressed layers.
            diff_ids: what they must be, uncompressed.
            ready: called with each layer's index; returns when its blob is in the store.

        Raises:
            DriverError: CORRUPT when a layer is not what the config says.
        """
        if len(layers) != len(diff_ids):
            raise DriverError(
                "the image's config and manifest do not fit",
                details=f"{len(diff_ids)} diff ids, {len(layers)} layers",
                code=Code.CORRUPT,
            )
        for diff_id in diff_ids:
            # Snapshots are looked up by it: nothing else that has a name may be meant.
            if not _DIFF_ID.fullmatch(diff_id):
                raise DriverError(
                    "the image's config has a diff id that is no digest",
                    details=repr(diff_id[:100]),
                    code=Code.CORRUPT,
                )
        parent = ""
        for index, layer in enumerate(layers):
            chain = oci_image.chain_id(diff_ids[: index + 1])
            ready(index)
            if not self._exists(chain):
                self._apply(layer, diff_ids[index], parent, chain)
                # Of this very blob it has been seen; others trust the label.
                label_blob(
                    self._calls, layer.digest, {"containerd.io/uncompressed": diff_ids[index]}
                )
            parent = chain
        return parent

    def _exists(self, chain: str) -> bool:
        request = snapshots_pb2.StatSnapshotRequest(snapshotter=self._snapshotter, key=chain)
        try:
            self._calls(methods.SNAPSHOT_STAT, request, f"look up layer {chain}", _CALL_S)
        except DriverError as error:
            if error.code is Code.NOT_FOUND:
                return False
            raise
        return True

    def _apply(self, layer: Descriptor, diff_id: str, parent: str, chain: str) -> None:
        key = f"extract-{secrets.token_hex(8)} {chain}"
        prepare = snapshots_pb2.PrepareSnapshotRequest(
            snapshotter=self._snapshotter, key=key, parent=parent
        )
        mounts = self._calls(
            methods.SNAPSHOT_PREPARE, prepare, f"prepare layer {chain}", _CALL_S
        ).mounts
        try:
            request = diff_pb2.ApplyRequest(
                diff=types_pb2.Descriptor(
                    media_type=_ANY_COMPRESSION, digest=layer.digest, size=layer.size
                ),
                mounts=mounts,
            )
            what = f"unpack layer {layer.digest}"
            applied = self._calls(methods.DIFF_APPLY, request, what, _APPLY_S).applied
            _check(layer, applied.digest, diff_id)
            self._commit(chain, key)
        except DriverError:
            self._remove(key)
            raise

    def _commit(self, chain: str, key: str) -> None:
        request = snapshots_pb2.CommitSnapshotRequest(
            snapshotter=self._snapshotter, name=chain, key=key
        )
        try:
            self._calls(methods.SNAPSHOT_COMMIT, request, f"keep layer {chain}", _APPLY_S)
        except DriverError as error:
            # Another pull was faster; its layer is as good.
            if error.code is not Code.ALREADY_EXISTS:
                raise
            self._remove(key)

    def _remove(self, key: str) -> None:
        request = snapshots_pb2.RemoveSnapshotRequest(snapshotter=self._snapshotter, key=key)
        try:
            self._calls(methods.SNAPSHOT_REMOVE, request, f"remove snapshot {key}", _CALL_S)
        except DriverError:
            return  # the lease's end lets containerd collect it


def _check(layer: Descriptor, applied: str, diff_id: str) -> None:
    if applied != diff_id:
        raise DriverError(
            f"layer {layer.digest} is not what the image's config says",
            details=f"it unpacks to {applied}, not {diff_id}",
            resolution="push the image again",
            code=Code.CORRUPT,
        )


def label_blob(calls: SyncCalls, digest: str, labels: dict[str, str]) -> None:
    """Sets labels of a blob; the others stay."""
    request = content_pb2.UpdateRequest(
        info=content_pb2.Info(digest=digest, labels=labels),
        update_mask=FieldMask(paths=[f"labels.{name}" for name in labels]),
    )
    calls(methods.CONTENT_UPDATE, request, f"label blob {digest}", _CALL_S)
