"""Choice of the manifest that this machine runs: one walk down from the image's root.

The walk is a generator without I/O. It yields requests for documents, and for configs if no index
states the platform. The puller answers from a registry or an archive, `oci_image.load_image` from
containerd's content store. So puller, plugin and the preview of a spec choose alike.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace

from containerd.image import manifests, platforms
from containerd.image.config import CONFIG_LIMIT_BYTES, ImageConfig, parse_config
from containerd.image.manifests import DOCUMENT_LIMIT_BYTES, Descriptor, Index, Manifest
from containerd.image.platforms import Platform
from proto.errors import Code, DriverError
from proto.values import dataclass

_MAX_DEPTH = 8
# Documents that are read for one image. Only entries without a platform cost more than one read.
_MAX_READS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Request of the walk: for a manifest or an index, or for a config."""

    blob: Descriptor
    is_config: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDocument:
    """A manifest or an index as stored; the media type of blob is the document's own."""

    blob: Descriptor
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The chosen image. path leads from the image's root to the manifest, both included.

    config is None if the choice did not depend on the config.
    """

    path: tuple[StoredDocument, ...]
    manifest: Manifest
    config: ImageConfig | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    rank: int
    chosen: Chosen


Walk = Generator[Wanted, bytes, Chosen]
"""Yields requests, receives bytes by send or a DriverError by throw, and returns the choice."""


def choose(root: Descriptor, name: str, machine: str = "") -> Walk:
    """Chooses the manifest of an image for a machine.

    A root that is a manifest is chosen whatever its platform is, unless a job has chosen the
    platform. A missing document is passed over
    if the image has another manifest for the architecture.

    Args:
        root: the image's manifest or index.
        name: the image, for errors.
        machine: uname's machine, or the platform that a job has chosen; empty for the present
            machine.

    Raises:
        DriverError: UNSUPPORTED, with the platforms of the image; NOT_FOUND if the machine's
            manifest is missing; CORRUPT.
    """
    return _Walk(name, platforms.machine(machine)).run(root)


def answer(walk: Walk, read: Callable[[Wanted], bytes]) -> Chosen:
    """Runs a walk with blocking reads.

    Raises:
        DriverError: of the walk; the walk receives the errors of `read`.
    """
    try:
        wanted = next(walk)
        while True:
            try:
                body = read(wanted)
            except DriverError as error:
                wanted = walk.throw(error)
            else:
                wanted = walk.send(body)
    except StopIteration as end:
        chosen: Chosen = end.value
        return chosen


class _Walk:
    def __init__(self, name: str, machine: platforms.Machine) -> None:
        self._name = name
        self._machine = machine
        self._seen: set[str] = set()
        self._missing: list[DriverError] = []
        # Platforms of other machines, and types of entries that are no images.
        self._others: set[str] = set()
        self._artifacts: list[str] = []

    def run(self, root: Descriptor) -> Walk:
        body = yield Wanted(blob=root)
        document = manifests.read(body, root.media_type, self._name)
        path = (_stored(root, document, body),)
        if isinstance(document, Manifest):
            if artifact := manifests.artifact_type(document):
                raise manifests.not_an_image(self._name, artifact)
            chosen = self._image(path, document)
            return (yield from self._of_platform(chosen)) if self._machine.exact else chosen
        best = yield from self._best(path, document)
        if best is None:
            raise self._missing[0] if self._missing else self._unsupported()
        return best.chosen

    def _of_platform(self, chosen: Chosen) -> Walk:
        """Returns the image of a root manifest with its config, which states the platform."""
        body = yield Wanted(blob=chosen.manifest.config, is_config=True)
        config = parse_config(body, self._name)
        if self._machine.rank(config.platform) is None:
            self._note(config.platform)
            raise self._unsupported()
        return replace(chosen, config=config)

    def _best(
        self, path: tuple[StoredDocument, ...], index: Index
    ) -> Generator[Wanted, bytes, _Candidate | None]:
        """Returns the best candidate of an index. Of equal candidates, the first."""
        ranked: list[tuple[int, Descriptor]] = []
        unstated: list[Descriptor] = []
        for entry in index.entries:
            if not manifests.may_be_document(entry.media_type):
                self._artifacts.append(entry.media_type)
            elif entry.platform is None:
                unstated.append(entry)
            elif (rank := self._machine.rank(entry.platform)) is not None:
                ranked.append((rank, entry))
            else:
                self._note(entry.platform)
        ranked.sort(key=lambda pair: (pair[0], pair[1].os_features))
        missing = len(self._missing)
        for rank, entry in ranked:
            if self._machine.is_native(rank):
                native = yield from self._candidate(path, entry, rank)
                if native is not None:
                    return native
        if len(self._missing) > missing:
            return None  # a native manifest is only missing: no last resort in its place
        best: _Candidate | None = None
        for entry in unstated:
            best = _better(best, (yield from self._candidate(path, entry, None)))
        for rank, entry in ranked:
            if best is None or rank < best.rank:
                best = _better(best, (yield from self._candidate(path, entry, rank)))
        return best

    def _candidate(
        self, path: tuple[StoredDocument, ...], entry: Descriptor, rank: int | None
    ) -> Generator[Wanted, bytes, _Candidate | None]:
        """Returns the candidate behind an entry; None if the entry has none for the machine.

        Args:
            path: the documents above the entry.
            entry: an entry of an index.
            rank: rank of the entry's platform; None if only the config states the platform.
        """
        if entry.digest in self._seen:
            return None
        self._seen.add(entry.digest)
        self._check_limits(path, entry)
        try:
            body = yield Wanted(blob=entry)
            if len(body) != entry.size:
                reason = f"{entry.digest} has {len(body)} bytes, its index states {entry.size}"
                raise manifests.damaged(self._name, reason)
            document = manifests.read(body, entry.media_type, self._name)
            path = (*path, _stored(entry, document, body))
            if isinstance(document, Index):
                return (yield from self._best(path, document))
            if artifact := manifests.artifact_type(document):
                self._artifacts.append(artifact)
                return None
            chosen = self._image(path, document)
            if rank is not None:
                return _Candidate(rank=rank, chosen=chosen)
            body = yield Wanted(blob=document.config, is_config=True)
        except DriverError as error:
            if error.code is not Code.NOT_FOUND:
                raise
            self._missing.append(error)
            return None
        config = parse_config(body, self._name)
        rank = self._machine.rank(config.platform)
        if rank is None:
            self._note(config.platform)
            return None
        return _Candidate(rank=rank, chosen=replace(chosen, config=config))

    def _image(self, path: tuple[StoredDocument, ...], manifest: Manifest) -> Chosen:
        if not manifest.layers:
            raise DriverError(
                f"image {self._name} has no layers, so no program to run",
                code=Code.UNSUPPORTED,
            )
        if manifest.config.size > CONFIG_LIMIT_BYTES:
            raise DriverError(
                f"the config of image {self._name} is too large",
                code=Code.CORRUPT,
            )
        return Chosen(path=path, manifest=manifest)

    def _check_limits(self, path: tuple[StoredDocument, ...], entry: Descriptor) -> None:
        if len(path) > _MAX_DEPTH:
            raise DriverError(
                f"image {self._name} has indexes nested more than {_MAX_DEPTH} deep",
                resolution="push the image with an index that lists the manifests",
                code=Code.UNSUPPORTED,
            )
        if len(self._seen) > _MAX_READS:
            raise DriverError(
                f"image {self._name} has more than {_MAX_READS} entries that may be for this"
                " machine",
                resolution="push the image with an index that states the platform of each entry",
                code=Code.UNSUPPORTED,
            )
        if entry.size > DOCUMENT_LIMIT_BYTES:
            reason = f"a manifest of {entry.size} bytes is larger than {DOCUMENT_LIMIT_BYTES} bytes"
            raise manifests.damaged(self._name, reason)

    def _note(self, platform: Platform) -> None:
        # "unknown/unknown" is an attestation, not an image.
        if platform.architecture != "unknown":
            self._others.add(str(platform) or "unnamed")

    def _unsupported(self) -> DriverError:
        if self._artifacts and not self._others:
            return manifests.not_an_image(self._name, self._artifacts[0])
        return DriverError(
            f"image {self._name} has no manifest for {self._machine.name}",
            details=f"platforms of the image: {', '.join(sorted(self._others)) or 'none'}"[:500],
            resolution="choose another platform, or an image that is built for the platform"
            if self._machine.exact
            else "use an image built for this machine's architecture",
            code=Code.UNSUPPORTED,
        )


def _stored(blob: Descriptor, document: Manifest | Index, body: bytes) -> StoredDocument:
    stored = replace(blob, media_type=document.media_type, size=len(body))
    return StoredDocument(blob=stored, body=body)


def _better(first: _Candidate | None, second: _Candidate | None) -> _Candidate | None:
    if first is None or second is None:
        return first or second
    return second if second.rank < first.rank else first
