"""The puller: a process that fetches one image into containerd and ends.

A process of its own so that megabytes of TLS and JSON leave with it, and so that the plugin's death
ends it: its stdin closes then, and it stops. Talks frames of `containerd.pull.protocol`.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

if __name__ == "__main__":
    # Started by path with -I: the packages lie beside this one's directory.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask

from containerd import reference
from containerd.api import features, methods
from containerd.image import choice as image_choice
from containerd.image import layer_types
from containerd.image.choice import Chosen, Document, Wanted
from containerd.image.config import CONFIG_LIMIT_BYTES, parse_config
from containerd.image.manifests import Descriptor, Manifest
from containerd.pull.calls import SyncCalls
from containerd.pull.content_store import ContentStore, chunks_of
from containerd.pull.protocol import PullRequest, PullResult
from containerd.pull.reporter import Reporter, emit
from containerd.pull.source import ImageSource, RegistrySource
from containerd.pull.tar_index import check_total
from containerd.pull.unpack import Unpacker, label_blob
from containerd.registry.http_request import Access
from containerd.registry.proxies import Proxies
from containerd.registry.retries import Patience
from containerd.watchdog import Watchdog
from proto import frames
from proto.containerd import images_pb2, types_pb2
from proto.errors import Code, DriverError
from proto.exhaustion import exhausted

_PARALLEL_LAYERS = 3
_CALL_S = 30.0
_WATCHDOG_LATER_S = 2.0


class Pull:
    """One pull from resolving to the image's record."""

    def __init__(self, request: PullRequest, reporter: Reporter) -> None:
        self._request = request
        self._reporter = reporter
        self._name = reference.parse(request.reference)
        self._image = request.reference
        self._source = _source(request, self._name, reporter.note)
        self._calls = SyncCalls(request.address, request.namespace, request.lease)
        self._store = ContentStore(self._calls)

    def run(self) -> PullResult:
        """Pulls, unpacks, and names the image last, so that no name is ever half an image.

        Raises:
            DriverError: whatever failed; the lease holds what came so far, and nothing else does.
        """
        if self._unchanged():
            return PullResult(name=self._image, digest=self._request.present, unchanged=True)
        chosen = self._choose()
        manifest, root = chosen.manifest, chosen.path[0].blob
        if self._request.archive is not None:
            # Whoever asks for this name without the archive must not get what a job brought along.
            self._image = loaded_name(self._name, root.digest)
        self._check_layers(manifest)
        self._reporter.expect(manifest.layers)
        # A choice that depended on the config has fetched it.
        config = chosen.config or parse_config(self._config(manifest.config), str(self._name))
        chain = self._layers(manifest, config.diff_ids)
        self._keep_manifest(chosen.path[-1], manifest)
        for parent, child in reversed(list(pairwise(chosen.path))):
            self._keep_index(parent, child.blob)
        snapshot_label = f"containerd.io/gc.ref.snapshot.{self._request.snapshotter}"
        label_blob(self._calls, manifest.config.digest, {snapshot_label: chain})
        self._name_image(root)
        size = manifest.config.size + sum(layer.size for layer in manifest.layers)
        return PullResult(
            name=self._image,
            digest=root.digest,
            size=size,
            chain_id=chain,
            config_digest=manifest.config.digest,
        )

    def _unchanged(self) -> bool:
        """Returns whether the registry has what is here already: a HEAD costs nobody a pull."""
        present = self._request.present
        if not present or not isinstance(self._source, RegistrySource):
            return False
        return self._source.digest(self._name.selector) == present

    def _choose(self) -> Chosen:
        """Returns what this machine runs of the image; nothing but documents and configs comes."""
        root, root_body = self._resolve()

        def read(wanted: Wanted) -> bytes:
            blob = wanted.blob
            if wanted.is_config:
                return self._config(blob)
            return root_body if blob is root else self._source.manifest(blob.digest)[0]

        return image_choice.run(
            image_choice.choose(root, str(self._name), self._request.platform), read
        )

    def _resolve(self) -> tuple[Descriptor, bytes]:
        body, media_type = self._source.manifest(self._name.selector)
        digest = self._name.digest or _digest_of(body)
        return Descriptor(media_type=media_type, digest=digest, size=len(body)), body

    def _check_layers(self, manifest: Manifest) -> None:
        """Refuses what cannot be unpacked before the first layer is fetched."""
        kinds = [layer_types.check(layer, str(self._name)) for layer in manifest.layers]
        if self._request.archive is not None:
            # A file of a directory may be sparse: terabytes that cost who made it nothing.
            check_total(sum(layer.size for layer in manifest.layers))
        if any(kind.compression == layer_types.ZSTD for kind in kinds):
            said = self._calls(methods.VERSION, Empty(), "tell its version", _CALL_S)
            features.require(features.ZSTD, said.version, f"the image {self._name}")
        for layer, kind in zip(manifest.layers, kinds, strict=True):
            if kind.foreign:
                self._fetch_foreign(layer)

    def _config(self, config: Descriptor) -> bytes:
        self._fetch(config)
        return self._store.read(config.digest, CONFIG_LIMIT_BYTES)

    def _fetch_foreign(self, layer: Descriptor) -> None:
        """Fetches a layer that registries need not have; nothing else is fetched before."""
        try:
            self._fetch(layer)
        except DriverError as error:
            if error.code is not Code.NOT_FOUND:
                raise
            raise layer_types.foreign_refusal(layer, str(self._name), error) from error

    def _layers(self, manifest: Manifest, diff_ids: tuple[str, ...]) -> str:
        """Downloads in parallel, unpacks in order as they come."""
        pool = ThreadPoolExecutor(_PARALLEL_LAYERS)
        try:
            futures: list[Future[None]] = [
                pool.submit(self._fetch, layer, self._reporter.got) for layer in manifest.layers
            ]

            def ready(index: int) -> None:
                futures[index].result()
                self._reporter.unpacked()

            unpacker = Unpacker(self._calls, self._request.snapshotter)
            return unpacker.unpack(manifest.layers, diff_ids, ready)
        finally:
            # Never waits: after a failure the process ends under the downloads that still run.
            pool.shutdown(wait=False, cancel_futures=True)

    def _fetch(self, blob: Descriptor, count: Callable[[int], None] = lambda _: None) -> None:
        """Fetches a blob; what does not match its digest is fetched once more, or elsewhere."""
        errors: list[DriverError] = []
        for way in self._source.tries(blob.digest, blob.size):
            counted = 0

            def progress(more: int) -> None:
                nonlocal counted
                counted += more
                count(more)

            try:
                self._store.write(blob, way(), self._origin(), progress)
            except DriverError as error:
                errors.append(error)
                count(-counted)
                if not self._source.again(error):
                    break
                continue
            return
        raise self._source.failure(errors)

    def _origin(self) -> dict[str, str]:
        if self._request.archive is not None:
            return {}
        host = self._name.registry
        return {f"containerd.io/distribution.source.{host}": self._name.repository}

    def _keep_manifest(self, target: Document, manifest: Manifest) -> None:
        labels = {"containerd.io/gc.ref.content.config": manifest.config.digest}
        for index, layer in enumerate(manifest.layers):
            labels[f"containerd.io/gc.ref.content.l.{index}"] = layer.digest
        self._put(target.blob, target.body, labels)

    def _keep_index(self, index: Document, child: Descriptor) -> None:
        # Named by digest: a number may be another platform's, which somebody else has fetched.
        name = child.digest.partition(":")[2][:12]
        self._put(index.blob, index.body, {f"containerd.io/gc.ref.content.m.{name}": child.digest})

    def _put(self, blob: Descriptor, body: bytes, labels: dict[str, str]) -> None:
        self._store.write(blob, chunks_of(body), {**self._origin(), **labels}, lambda _: None)
        # Where the blob was there already, its labels may be another's.
        label_blob(self._calls, blob.digest, labels)

    def _name_image(self, root: Descriptor) -> None:
        image = images_pb2.Image(
            name=self._image,
            labels=dict(self._request.labels),
            target=types_pb2.Descriptor(
                media_type=root.media_type, digest=root.digest, size=root.size
            ),
        )
        what = f"name image {self._image}"
        try:
            self._calls(
                methods.IMAGE_CREATE, images_pb2.CreateImageRequest(image=image), what, _CALL_S
            )
        except DriverError as error:
            if error.code is not Code.ALREADY_EXISTS:
                raise
            # Only the target: labels of other owners of the name stay.
            update = images_pb2.UpdateImageRequest(
                image=image, update_mask=FieldMask(paths=["target"])
            )
            self._calls(methods.IMAGE_UPDATE, update, what, _CALL_S)


def loaded_name(name: reference.Reference, digest: str) -> str:
    """Name of an image from an archive: no registry has such a one, and no other content does."""
    return f"loaded/{name.registry}/{name.repository}@{digest}"


def _source(
    request: PullRequest, name: reference.Reference, tell: Callable[[str], None]
) -> ImageSource:
    deadline = time.monotonic() + request.timeout_s
    if request.archive is None:
        proxies = Proxies(request.proxies)
        access = Access(deadline=deadline, silence_s=request.silence_s, proxies=proxies)
        patience = Patience(deadline, tell, waits=request.waits)
        return RegistrySource(name, request.endpoints, request.credentials, access, patience)
    from containerd.pull import archive_source  # noqa: PLC0415 - few pulls are from an archive

    return archive_source.open_source(request.archive, name, deadline)


def _digest_of(body: bytes) -> str:
    import hashlib  # noqa: PLC0415 - for tags only

    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def _read_request() -> PullRequest:
    decoder = frames.Decoder()
    while data := os.read(0, 65536):
        for frame in decoder.feed(data):
            return PullRequest.from_wire(frame)
    raise DriverError("the puller got no request", code=Code.INVALID)


def _stop_when_alone() -> None:
    """Ends the process when stdin ends: the plugin is gone, or nobody wants the image any more.

    Ingests that are cut so are never continued; containerd drops them with the lease.
    """
    while os.read(0, 4096):
        pass
    os._exit(1)


def _give_up(error: DriverError) -> None:
    """Ends the process under its threads: what they wait for does not come."""
    emit({"event": "failed", "error": error.to_wire()})
    os._exit(1)


def main() -> int:
    """Serves the one request on stdin."""
    try:
        request = _read_request()
        threading.Thread(target=_stop_when_alone, daemon=True).start()
        reporter = Reporter()
        # A moment more than the sockets' own: those let a mirror have its turn.
        limit_s = request.silence_s + _WATCHDOG_LATER_S
        Watchdog(limit_s, request.timeout_s, reporter.waits, _give_up).start()
        emit(Pull(request, reporter).run().to_wire())
    except DriverError as error:
        emit({"event": "failed", "error": error.to_wire()})
        return 1
    except BrokenPipeError:
        return 1
    except RuntimeError as error:
        emit({"event": "failed", "error": _no_thread(error).to_wire()})
        return 1
    except Exception as error:  # noqa: BLE001 - a defect must reach the task's events in words
        emit({"event": "failed", "error": _unknown(error).to_wire()})
        return 1
    return 0


def _no_thread(error: RuntimeError) -> DriverError:
    if "new thread" not in str(error):
        return _unknown(error)
    return exhausted("the puller cannot run", OSError(errno.EAGAIN, str(error)))


def _unknown(error: Exception) -> DriverError:
    return DriverError(
        "the puller failed in a way that it does not know",
        details=f"{type(error).__name__}: {error}"[:500],
    )


if __name__ == "__main__":
    status = main()
    # Threads of a cancelled download must not hold the process.
    os._exit(status)
