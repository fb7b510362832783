"""A pull: the steps that bring one image from a registry or an archive into containerd."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import pairwise

from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask

from containerd import reference
from containerd.api import features, methods
from containerd.image import layer_types
from containerd.image.choice import Chosen, StoredDocument, Wanted, answer, choose
from containerd.image.config import CONFIG_LIMIT_BYTES, parse_config
from containerd.image.manifests import Descriptor, Manifest, sha256_of
from containerd.pull.calls import SyncCalls
from containerd.pull.content_store import ContentStore, chunks_of
from containerd.pull.protocol import PullRequest, PullResult
from containerd.pull.reporter import Reporter
from containerd.pull.source import ImageSource, RegistrySource
from containerd.pull.tar_index import check_total
from containerd.pull.unpack import Unpacker, label_blob
from containerd.registry.http_request import Access
from containerd.registry.proxies import Proxies
from containerd.registry.retries import Retries
from proto.containerd import images_pb2, types_pb2
from proto.errors import Code, DriverError

_PARALLEL_LAYERS = 3
# Unpacking takes longest, and goes from the lowest layer up. On a fast network a large layer has
# the bandwidth for itself, and is ready early. On a slow network the next download begins soon.
_HEAD_START_S = 0.3
_LARGE_BYTES = 4 * 1024 * 1024


class Pull:
    """One pull, from resolving the image's name to writing the image's record in containerd."""

    def __init__(self, request: PullRequest, reporter: Reporter) -> None:
        self._request = request
        self._reporter = reporter
        self._name = reference.parse(request.reference)
        self._image = request.reference
        self._source = _source(request, self._name, reporter.note)
        self._calls = SyncCalls(request.address, request.namespace, request.lease)
        self._store = ContentStore(self._calls)

    def run(self) -> PullResult:
        """Pulls, unpacks and names the image. The name comes last: no name is ever half an image.

        Raises:
            DriverError: the failure; only the lease protects the blobs that are complete by then.
        """
        if self._unchanged():
            return PullResult(name=self._image, digest=self._request.present, unchanged=True)
        chosen = self._choose()
        manifest, root = chosen.manifest, chosen.path[0].blob
        if self._request.archive is not None:
            # An archive is a job's own: no other job may get its image by the registry's name.
            self._image = loaded_name(self._name, root.digest)
        foreign = self._check_layers(manifest)
        self._reporter.step("image chosen")
        # A choice that depended on the config has fetched the config.
        config = chosen.config or parse_config(self._config(manifest.config), str(self._name))
        layers, chain = self._layers(manifest, config.diff_ids, foreign)
        self._reporter.step("layers unpacked")
        self._keep_manifest(chosen.path[-1], manifest)
        for parent, child in reversed(list(pairwise(chosen.path))):
            self._keep_index(parent, child.blob)
        snapshot_label = f"containerd.io/gc.ref.snapshot.{self._request.snapshotter}"
        label_blob(self._calls, manifest.config.digest, {snapshot_label: chain})
        self._name_image(root)
        self._reporter.step("image named")
        size = manifest.config.size + sum(layer.size for layer in layers)
        return PullResult(
            name=self._image,
            digest=root.digest,
            size=size,
            chain_id=chain,
            config_digest=manifest.config.digest,
        )

    def _unchanged(self) -> bool:
        """Returns True if the registry has the present image: a HEAD counts as no pull."""
        present = self._request.present
        if not present or not isinstance(self._source, RegistrySource):
            return False
        return self._source.digest(self._name.selector) == present

    def _choose(self) -> Chosen:
        """Returns this machine's image; fetches documents and configs only."""
        root, root_body = self._resolve()

        def read(wanted: Wanted) -> bytes:
            blob = wanted.blob
            if wanted.is_config:
                return self._config(blob)
            return root_body if blob is root else self._source.manifest(blob.digest)[0]

        return answer(choose(root, str(self._name), self._request.platform), read)

    def _resolve(self) -> tuple[Descriptor, bytes]:
        body, media_type = self._source.manifest(self._name.selector)
        digest = self._name.digest or sha256_of(body)
        return Descriptor(media_type=media_type, digest=digest, size=len(body)), body

    def _check_layers(self, manifest: Manifest) -> set[int]:
        """Refuses an image that cannot be unpacked, before anything is fetched.

        Returns:
            The indexes of foreign layers.
        """
        types = [layer_types.check(layer, str(self._name)) for layer in manifest.layers]
        if self._request.archive is not None:
            # A file of an image directory may be sparse: terabytes that cost a job nothing.
            check_total(sum(layer.size for layer in manifest.layers))
        if any(layer_type.compression == layer_types.ZSTD for layer_type in types):
            version = self._calls(methods.VERSION, Empty(), "return its version").version
            features.require(features.ZSTD, version, f"the image {self._name}")
        return {index for index, layer_type in enumerate(types) if layer_type.foreign}

    def _config(self, config: Descriptor) -> bytes:
        self._fetch(config)
        return self._store.read(config.digest, CONFIG_LIMIT_BYTES)

    def _fetch_foreign(self, layer: Descriptor) -> None:
        """Fetches a foreign layer before all other layers: many registries do not have it."""
        try:
            self._fetch(layer)
        except DriverError as error:
            if error.code is not Code.NOT_FOUND:
                raise
            raise layer_types.foreign_refusal(layer, str(self._name), error) from error

    def _layers(
        self, manifest: Manifest, diff_ids: tuple[str, ...], foreign: set[int]
    ) -> tuple[tuple[Descriptor, ...], str]:
        """Downloads layers in parallel, unpacks each in its turn.

        A layer whose snapshot exists is not downloaded. Files of an archive are all stored: the
        archive is gone when another program wants a blob, and a registry is not.

        Args:
            manifest: the image's manifest.
            diff_ids: digests of the uncompressed layers.
            foreign: indexes of foreign layers.

        Returns:
            The downloaded layers, and the chain id of the image.
        """
        unpacker = Unpacker(self._calls, self._request.snapshotter, manifest.layers, diff_ids)
        present = unpacker.present()
        first = present if self._request.archive is None else 0
        layers = manifest.layers[first:]
        for index in sorted(foreign):
            if index >= first:
                self._fetch_foreign(manifest.layers[index])
        self._reporter.expect(layers)
        pool = ThreadPoolExecutor(_PARALLEL_LAYERS)
        try:
            futures: list[Future[None]] = []
            large: list[Future[None]] = []
            for layer in layers:
                futures.append(pool.submit(self._fetch_after, large, layer))
                large = futures[-1:] if layer.size >= _LARGE_BYTES else []

            def ready(index: int) -> None:
                for future in futures[: index - first + 1]:
                    future.result()
                self._reporter.unpacked()

            chain = unpacker.unpack(present, ready)
            for future in futures:
                future.result()
            return layers, chain
        finally:
            # Does not wait: after a failure the process ends during the remaining downloads.
            pool.shutdown(wait=False, cancel_futures=True)

    def _fetch_after(self, large: list[Future[None]], layer: Descriptor) -> None:
        wait(large, timeout=_HEAD_START_S)
        self._fetch(layer, self._reporter.received)

    def _fetch(self, blob: Descriptor, count: Callable[[int], None] = lambda _: None) -> None:
        """Fetches a blob. A blob with a wrong digest is fetched again, or from elsewhere.

        Args:
            blob: the blob; an existing blob of containerd is not fetched.
            count: called with the number of new bytes; a negative number takes bytes back.

        Raises:
            DriverError: of the source, see `ImageSource.failure`.
        """
        errors: list[DriverError] = []
        for attempt in self._source.attempts(blob.digest, blob.size):
            counted = 0

            def progress(more: int) -> None:
                nonlocal counted
                counted += more
                count(more)

            try:
                self._store.write(blob, attempt(), self._origin(), progress)
            except DriverError as error:
                errors.append(error)
                count(-counted)
                if not self._source.retries(error):
                    break
                continue
            return
        raise self._source.failure(errors)

    def _origin(self) -> dict[str, str]:
        if self._request.archive is not None:
            return {}
        host = self._name.registry
        return {f"containerd.io/distribution.source.{host}": self._name.repository}

    def _keep_manifest(self, target: StoredDocument, manifest: Manifest) -> None:
        labels = {"containerd.io/gc.ref.content.config": manifest.config.digest}
        for index, layer in enumerate(manifest.layers):
            labels[f"containerd.io/gc.ref.content.l.{index}"] = layer.digest
        self._put(target.blob, target.body, labels)

    def _keep_index(self, index: StoredDocument, child: Descriptor) -> None:
        # The label's name has the child's digest. A number could overwrite the label of another
        # platform's manifest that another client has fetched.
        name = child.digest.partition(":")[2][:12]
        self._put(index.blob, index.body, {f"containerd.io/gc.ref.content.m.{name}": child.digest})

    def _put(self, blob: Descriptor, body: bytes, labels: dict[str, str]) -> None:
        self._store.write(blob, chunks_of(body), {**self._origin(), **labels}, lambda _: None)
        # An existing blob keeps its own labels at the write, so the labels are set again.
        label_blob(self._calls, blob.digest, labels)

    def _name_image(self, root: Descriptor) -> None:
        image = images_pb2.Image(
            name=self._image,
            labels=dict(self._request.labels),
            target=types_pb2.Descriptor(
                media_type=root.media_type, digest=root.digest, size=root.size
            ),
        )
        action = f"name image {self._image}"
        try:
            create = images_pb2.CreateImageRequest(image=image)
            self._calls(methods.IMAGE_CREATE, create, action)
        except DriverError as error:
            if error.code is not Code.ALREADY_EXISTS:
                raise
            # Only the target: labels that other clients have set on the name stay.
            update = images_pb2.UpdateImageRequest(
                image=image, update_mask=FieldMask(paths=["target"])
            )
            self._calls(methods.IMAGE_UPDATE, update, action)


def loaded_name(name: reference.Reference, digest: str) -> str:
    """Returns the name of an image from an archive.

    No registry has a repository "loaded/…", and the digest gives other content another name.
    """
    return f"loaded/{name.registry}/{name.repository}@{digest}"


def _source(
    request: PullRequest, name: reference.Reference, note: Callable[[str], None]
) -> ImageSource:
    deadline = time.monotonic() + request.timeout_s
    if request.archive is None:
        proxies = Proxies(request.proxies)
        access = Access(deadline=deadline, silence_s=request.silence_s, proxies=proxies)
        retries = Retries(deadline, note, waits=request.waits)
        return RegistrySource(name, request.endpoints, request.credentials, access, retries)
    from containerd.pull import archive_source  # noqa: PLC0415 - few pulls are from an archive

    return archive_source.open_source(request.archive, name, deadline)
