"""An image in an archive, made to look like OCI's.

Read are OCI's layout (skopeo, buildah, podman, buildkit, umoci, newer `docker save`), what
`docker save` writes, and the directory of skopeo's `dir:`. containerd checks every blob's digest
when it is stored, so an archive brings what it says or nothing; it is a job's own, and what it
brings gets a name of its own (`puller.loaded_name`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from containerd import reference
from containerd.image import manifests
from containerd.image.config import CONFIG_LIMIT_BYTES, parse_config
from containerd.image.manifests import DOCUMENT_LIMIT_BYTES, Descriptor
from containerd.pull.archive_files import ArchiveFiles, open_archive, read
from containerd.pull.tar_index import refused
from containerd.registry.client import verify
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from containerd.pull.protocol import Archive
    from containerd.reference import Reference

_FULL_NAME, _REF_NAME = "io.containerd.image.name", "org.opencontainers.image.ref.name"
_SUFFIXES = {b"\x1f\x8b": "+gzip", b"\x28\xb5": "+zstd"}
_IN_IT = "in the archive"
# No image is built for more; the config of each is held in memory.
_MAX_PLATFORMS = 64


def open_source(archive: Archive, name: Reference, deadline: float) -> ArchiveSource:
    """Opens the image of this name in an archive, or the only image that it has.

    Raises:
        DriverError: there is no archive, or none that has the image.
    """
    files = open_archive(archive, deadline)
    try:
        return ArchiveSource(files, _contents(files, name))
    except BaseException:
        files.close()
        raise


@dataclass(slots=True)
class _Contents:
    """What an archive has of one image.

    root is the digest of its manifest or index, root_type what the archive calls it; made are the
    blobs that are no files, places the file names of those that do not lie where digests say.
    """

    root: str
    root_type: str = ""
    made: dict[str, bytes] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def make(self, document: dict[str, Any]) -> tuple[str, int]:
        """Adds a document, and returns its digest and its size."""
        body = json.dumps(document, separators=(",", ":")).encode()
        digest = _digest(body)
        self.made[digest] = body
        return digest, len(body)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One image of an archive: what it is called, and what the archive says of it."""

    names: tuple[str, ...]
    fields: dict[str, Any]
    blob: Descriptor | None = None

    @property
    def identity(self) -> str:
        """Returns what entries of one and the same image share."""
        return self.blob.digest if self.blob else str(self.fields.get("Config"))


class ArchiveSource:
    """See `image_source.ImageSource`; blobs are files of the archive, or made up here."""

    def __init__(self, files: ArchiveFiles, contents: _Contents) -> None:
        self._files = files
        self._contents = contents

    def manifest(self, selector: str) -> tuple[bytes, str]:
        """See `ImageSource`; a tag was chosen already."""
        digest = selector if ":" in selector else self._contents.root
        body = self._contents.made.get(digest)
        if body is None:
            body = read(self._files, self._place(digest), DOCUMENT_LIMIT_BYTES)
            verify(body, digest, "archive")
        return body, self._contents.root_type if digest == self._contents.root else ""

    def tries(self, digest: str, size: int) -> Sequence[Callable[[], Iterator[bytes]]]:
        """See `ImageSource`; a file of another size than the manifest says is not read at all."""
        made = self._contents.made.get(digest)
        if made is not None:
            return [lambda: iter([made])]
        place = self._place(digest)
        if (found := self._files.size(place)) != size:
            raise refused(f"the blob {digest} has {found} bytes, and its manifest says {size}")
        return [lambda: self._files.chunks(place)]

    def close(self) -> None:
        """Lets the archive go."""
        self._files.close()

    def again(self, error: DriverError) -> bool:  # noqa: ARG002
        """See `ImageSource`."""
        return False

    def failure(self, errors: Sequence[DriverError]) -> DriverError:
        """See `ImageSource`."""
        if errors[-1].code is not Code.CORRUPT:
            return errors[-1]
        return refused(f"a blob is not what its digest says: {errors[-1].details}")

    def _place(self, digest: str) -> str:
        """Returns a blob's file name.

        Raises:
            DriverError: code NOT_FOUND.
        """
        if place := self._contents.places.get(digest):
            return place
        for place in _places(digest):
            if self._files.size(place) is not None:
                return place
        raise DriverError(
            f"the image archive has no blob {digest}",
            resolution="save the image again, with all that this machine's platform needs",
            code=Code.NOT_FOUND,
        )


def _contents(files: ArchiveFiles, name: Reference) -> _Contents:
    saved_fields = _document(files, "manifest.json")
    if isinstance(saved_fields, dict):
        # skopeo's `dir:`; blobs lie beside it by their digests.
        body = read(files, "manifest.json", DOCUMENT_LIMIT_BYTES)
        return _Contents(_digest(body), made={_digest(body): body})
    layout_fields = _document(files, "index.json")
    if layout_fields is None and saved_fields is None:
        raise refused(
            "it has neither index.json nor manifest.json; `docker export` and a build's"
            " type=tar write files and no image"
        )
    if name.digest:
        return _Contents(name.digest)
    saved = _saved(saved_fields)
    try:
        listed = _listed(layout_fields)
    except DriverError:
        if not saved:
            raise
        listed = []
    if saved:
        # Some releases of docker write an index.json that is poorer than manifest.json beside it.
        listed = [entry for entry in listed if _is_there(files, entry)]
    # Of the same image under several names one entry is enough.
    chosen = [*{entry.identity: entry for entry in _choose(name, listed, saved)}.values()]
    if len(chosen) > _MAX_PLATFORMS:
        raise refused(f"it has {len(chosen)} images of one name, more than {_MAX_PLATFORMS}")
    return _of_layout(chosen) if chosen[0].blob else _of_docker(files, chosen)


def _listed(fields: object) -> list[_Entry]:
    """Returns the images of OCI's layout, without signatures and statements about them."""
    entries = fields.get("manifests") if isinstance(fields, dict) else None
    found: list[_Entry] = []
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict) or entry.get("artifactType"):
            continue
        blob = manifests.descriptor(entry, _IN_IT)
        statement = blob.platform is not None and blob.platform.architecture == "unknown"
        if statement or not manifests.may_be_document(blob.media_type):
            continue
        notes = entry.get("annotations")
        notes = notes if isinstance(notes, dict) else {}
        # Beside a full name the other one is its tag only, which two images may share.
        called = notes.get(_FULL_NAME) or notes.get(_REF_NAME)
        found.append(_Entry(names=(str(called),) if called else (), fields=entry, blob=blob))
    return found


def _saved(fields: object) -> list[_Entry]:
    """Returns the images of docker's manifest.json."""
    entries = fields if isinstance(fields, list) else []
    return [
        _Entry(names=_strings(entry.get("RepoTags")), fields=entry)
        for entry in entries
        if isinstance(entry, dict)
    ]


def _choose(name: Reference, listed: list[_Entry], saved: list[_Entry]) -> list[_Entry]:
    """Returns the entries of this name, else those of the only image.

    Several are one image for several platforms, of which `image_choice` takes this machine's.
    """
    pools = (listed, saved)
    for same in (_is_name, _is_local_name, _is_tag):
        for pool in pools:
            if named := [entry for entry in pool if any(same(name, one) for one in entry.names)]:
                return named
    if any(pools) and all(_is_one_image(pool) for pool in pools):
        return listed or saved
    count = max(len({entry.identity for entry in pool}) for pool in pools)
    names = sorted({text for pool in pools for entry in pool for text in entry.names})
    raise DriverError(
        f"the image archive has {count} images, and none of them is {name}",
        details=f"it has {', '.join(names) or 'none by a name'}"[:500],
        resolution="set image to the name of the one to run",
        code=Code.INVALID,
    )


def _is_one_image(pool: list[_Entry]) -> bool:
    """Returns True for entries of one image, or of one for several platforms."""
    if len({entry.identity for entry in pool}) <= 1:
        return True
    names = {entry.names for entry in pool}
    platforms = {str(entry.blob.platform) for entry in pool if entry.blob and entry.blob.platform}
    return len(names) == 1 and (names != {()} or len(platforms) == len(pool))


def _is_name(name: Reference, text: str) -> bool:
    """Returns True for the whole name, in any form."""
    try:
        return str(reference.parse(text)) == str(name)
    except DriverError:
        return False


def _is_local_name(name: Reference, text: str) -> bool:
    """Returns True for the name of what podman and buildah built, which no registry has."""
    return text.startswith("localhost/") and _is_name(name, text.removeprefix("localhost/"))


def _is_tag(name: Reference, text: str) -> bool:
    """Returns True for a bare tag, as skopeo, buildah and umoci write it."""
    return text == name.tag


def _of_layout(entries: list[_Entry]) -> _Contents:
    if len(entries) == 1 and (blob := entries[0].blob):
        return _Contents(blob.digest, blob.media_type)
    return _index_of([entry.fields for entry in entries], _Contents(""))


def _of_docker(files: ArchiveFiles, entries: list[_Entry]) -> _Contents:
    contents = _Contents("")
    made = [_saved_image(files, entry, contents) for entry in entries]
    if len({one["digest"] for one in made}) > 1:
        return _index_of(made, contents)
    contents.root, contents.root_type = made[0]["digest"], manifests.OCI_MANIFEST
    return contents


def _index_of(entries: list[dict[str, Any]], contents: _Contents) -> _Contents:
    """Has an index of these entries for its root: of two for one platform the last one counts."""
    kept = ("mediaType", "digest", "size", "platform")
    listed = [{key: entry[key] for key in kept if key in entry} for entry in reversed(entries)]
    document = {"schemaVersion": 2, "mediaType": manifests.OCI_INDEX, "manifests": listed}
    contents.root, _ = contents.make(document)
    contents.root_type = manifests.OCI_INDEX
    return contents


def _saved_image(files: ArchiveFiles, entry: _Entry, contents: _Contents) -> dict[str, Any]:
    """Returns the descriptor of a manifest for one image of docker's manifest.json."""
    config = read(files, str(entry.fields.get("Config") or "no config"), CONFIG_LIMIT_BYTES)
    layers = _strings(entry.fields.get("Layers"))
    diff_ids = parse_config(config, _IN_IT).diff_ids
    if len(layers) != len(diff_ids):
        raise refused(f"its config has {len(diff_ids)} layers, its manifest {len(layers)}")
    contents.made[_digest(config)] = config
    pairs = zip(layers, diff_ids, strict=True)
    digest, size = contents.make(
        {
            "schemaVersion": 2,
            "mediaType": manifests.OCI_MANIFEST,
            "config": {
                "mediaType": manifests.OCI_CONFIG,
                "digest": _digest(config),
                "size": len(config),
            },
            "layers": [_saved_layer(files, entry, *pair, contents) for pair in pairs],
        }
    )
    return {"mediaType": manifests.OCI_MANIFEST, "digest": digest, "size": size}


def _saved_layer(
    files: ArchiveFiles, entry: _Entry, layer: str, diff_id: str, contents: _Contents
) -> dict[str, Any]:
    size = files.size(layer)
    if size is None:
        sources = entry.fields.get("LayerSources")
        source = sources.get(diff_id) if isinstance(sources, dict) else None
        if isinstance(source, dict):
            return source  # a foreign layer, which docker does not save
        raise refused(f"it has no {layer[:128]!r}")
    suffix, digest = _compression(files, layer, diff_id)
    contents.places[digest] = layer
    return {"mediaType": f"{manifests.OCI_LAYER}{suffix}", "digest": digest, "size": size}


def _compression(files: ArchiveFiles, name: str, diff_id: str) -> tuple[str, str]:
    """(compression, digest): an uncompressed layer's digest is the diff id, which is checked."""
    chunks = files.chunks(name)
    first = next(chunks, b"")
    suffix = _SUFFIXES.get(first[:2], "")
    if not suffix:
        return "", diff_id
    hashed = hashlib.sha256(first)
    for chunk in chunks:
        hashed.update(chunk)
    return suffix, f"sha256:{hashed.hexdigest()}"


def _is_there(files: ArchiveFiles, entry: _Entry) -> bool:
    return entry.blob is not None and any(
        files.size(place) is not None for place in _places(entry.blob.digest)
    )


def _places(digest: str) -> tuple[str, ...]:
    """Returns where a blob may lie: in OCI's layout, and in skopeo's directory."""
    algorithm, _, value = digest.partition(":")
    return f"blobs/{algorithm}/{value}", value, f"{value}.manifest.json"


def _digest(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def _document(files: ArchiveFiles, name: str) -> Any:
    """Returns a JSON file of the archive; None where there is none, or it is blank."""
    if files.size(name) is None:
        return None
    body = read(files, name, DOCUMENT_LIMIT_BYTES)
    try:
        return json.loads(body.decode()) if body.strip(b" \t\r\n\0") else None
    except (ValueError, RecursionError):
        raise refused(f"{name} is not JSON") from None


def _strings(value: object) -> tuple[str, ...]:
    items = value if isinstance(value, list) else []
    return tuple(item for item in items if isinstance(item, str))
