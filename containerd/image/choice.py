"""Which manifest of an image this machine runs: one walk down from the image's root.

The walk is a generator that asks for documents, and for configs where no index tells the platform;
it does no I/O. The puller answers it
from a registry or an archive, `images.load` from containerd's content store; so all of them, and
the preview of a spec, choose alike.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

from containerd.image import manifests, platforms
from containerd.image.config import CONFIG_LIMIT_BYTES, ImageConfig, parse_config
from containerd.image.manifests import DOCUMENT_LIMIT_BYTES, Descriptor, Index, Manifest
from containerd.image.platforms import Platform
from proto.errors import Code, DriverError

_MAX_DEPTH = 8
# All that is read for one image. Only entries that do not tell their platform cost more than one.
_MAX_READS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the walk asks for: a manifest or an index, or a config."""

    blob: Descriptor
    is_config: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A manifest or an index as it is stored; blob has the media type that it has by itself."""

    blob: Descriptor
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """One platform's image. path leads from the image's root to the manifest, both included.

    config is None where the choice did not depend on it.
    """

    path: tuple[Document, ...]
    manifest: Manifest
    config: ImageConfig | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    rank: int
    chosen: Chosen


Walk = Generator[Wanted, bytes, Chosen]
"""Yields what it wants, is sent the bytes or thrown a DriverError, and returns its choice."""


def choose(root: Descriptor, name: str, machine: str = "") -> Walk:
    """Chooses what this machine, or one of uname's `machine`, runs of an image.

    A manifest alone is chosen whatever its platform is. What is NOT_FOUND is passed over where
    the image has something else for this architecture.

    Raises:
        DriverError: UNSUPPORTED, with the platforms that the image has; NOT_FOUND where what is
            for this machine is missing; or CORRUPT.
    """
    return _Walk(name, platforms.machine(machine)).run(root)


def run(walk: Walk, read: Callable[[Wanted], bytes]) -> Chosen:
    """Answers a walk by blocking reads.

    Raises:
        DriverError: of the walk or of `read`.
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
        # What is there for others, and what is no image.
        self._others: set[str] = set()
        self._artifacts: list[str] = []

    def run(self, root: Descriptor) -> Walk:
        body = yield Wanted(blob=root)
        document = manifests.read(body, root.media_type, self._name)
        path = (_stored(root, document, body),)
        if isinstance(document, Manifest):
            if artifact := manifests.artifact_type(document):
                raise manifests.not_an_image(self._name, artifact)
            return self._image(path, document)
        found = yield from self._best(path, document)
        if found is None:
            raise self._missing[0] if self._missing else self._nothing()
        return found.chosen

    def _best(
        self, path: tuple[Document, ...], index: Index
    ) -> Generator[Wanted, bytes, _Candidate | None]:
        """Returns the best of an index; of two that are as good the first, as containerd does."""
        ranked: list[tuple[int, Descriptor]] = []
        untold: list[Descriptor] = []
        for entry in index.entries:
            if not manifests.may_be_document(entry.media_type):
                self._artifacts.append(entry.media_type)
            elif entry.platform is None:
                untold.append(entry)
            elif (rank := self._machine.rank(entry.platform)) is not None:
                ranked.append((rank, entry))
            else:
                self._note(entry.platform)
        ranked.sort(key=lambda pair: (pair[0], pair[1].os_features))
        missing = len(self._missing)
        for rank, entry in ranked:
            if self._machine.is_native(rank):
                found = yield from self._candidate(path, entry, rank)
                if found is not None:
                    return found
        if len(self._missing) > missing:
            return None  # a last resort is none for what only has to be fetched
        found = None
        for entry in untold:
            found = _better(found, (yield from self._candidate(path, entry, None)))
        for rank, entry in ranked:
            if found is None or rank < found.rank:
                found = _better(found, (yield from self._candidate(path, entry, rank)))
        return found

    def _candidate(
        self, path: tuple[Document, ...], entry: Descriptor, rank: int | None
    ) -> Generator[Wanted, bytes, _Candidate | None]:
        """Returns what an entry leads to; None where it leads to nothing for this machine.

        Args:
            path: the documents above the entry.
            entry: of an index.
            rank: of the platform that the entry tells; None where its config has to.
        """
        if entry.digest in self._seen:
            return None
        self._seen.add(entry.digest)
        self._bound(path, entry)
        try:
            body = yield Wanted(blob=entry)
            if len(body) != entry.size:
                why = f"{entry.digest} has {len(body)} bytes, and its index says {entry.size}"
                raise manifests.damaged(self._name, why)
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

    def _image(self, path: tuple[Document, ...], manifest: Manifest) -> Chosen:
        if not manifest.layers:
            raise DriverError(
                f"{self._name} has no layers, so there is nothing in it to run",
                code=Code.UNSUPPORTED,
            )
        if manifest.config.size > CONFIG_LIMIT_BYTES:
            raise DriverError(f"the config of {self._name} is too large", code=Code.CORRUPT)
        return Chosen(path=path, manifest=manifest)

    def _bound(self, path: tuple[Document, ...], entry: Descriptor) -> None:
        if len(path) > _MAX_DEPTH:
            raise DriverError(
                f"image {self._name} has indexes nested more than {_MAX_DEPTH} deep",
                resolution="push it with an index that lists its manifests",
                code=Code.UNSUPPORTED,
            )
        if len(self._seen) > _MAX_READS:
            raise DriverError(
                f"image {self._name} has more than {_MAX_READS} entries that may be for this"
                " machine",
                resolution="push it with an index that tells the platform of each entry",
                code=Code.UNSUPPORTED,
            )
        if entry.size > DOCUMENT_LIMIT_BYTES:
            why = f"a manifest of {entry.size} bytes is larger than any"
            raise manifests.damaged(self._name, why)

    def _note(self, platform: Platform) -> None:
        # "unknown/unknown" is a statement about an image, and no image.
        if platform.architecture != "unknown":
            self._others.add(str(platform) or "unnamed")

    def _nothing(self) -> DriverError:
        if self._artifacts and not self._others:
            return manifests.not_an_image(self._name, self._artifacts[0])
        return DriverError(
            f"image {self._name} has nothing for {self._machine.name}",
            details=f"it has {', '.join(sorted(self._others)) or 'no manifests'}"[:500],
            resolution="use an image built for this machine's architecture",
            code=Code.UNSUPPORTED,
        )


def _stored(blob: Descriptor, document: Manifest | Index, body: bytes) -> Document:
    stored = replace(blob, media_type=document.media_type, size=len(body))
    return Document(blob=stored, body=body)


def _better(one: _Candidate | None, other: _Candidate | None) -> _Candidate | None:
    if one is None or other is None:
        return one or other
    return other if other.rank < one.rank else one
