"""Source of an image from an archive, in the form of an OCI image.

Three formats are read: OCI's layout (skopeo, buildah, podman, buildkit, umoci, newer
`docker save`), the format of older `docker save`, and the directory of skopeo's `dir:`. containerd
checks the digest of every blob that is written, so an archive cannot bring other content than its
manifests name. An archive belongs to a job, so its image gets a name of its own
(`pull.loaded_name`).
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
from containerd.image.manifests import DOCUMENT_LIMIT_BYTES, Descriptor, sha256_of
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
# No image is built for more platforms. Memory holds the config of each.
_MAX_PLATFORMS = 64


def open_source(archive: Archive, name: Reference, deadline: float) -> ArchiveSource:
    """Opens the image of a name in an archive, or the only image of the archive.

    Args:
        archive: the path.
        name: the image.
        deadline: `time.monotonic()` at which reading fails.

    Raises:
        DriverError: the archive is missing or damaged, or does not have the image.
    """
    files = open_archive(archive, deadline)
    try:
        return ArchiveSource(files, _contents(files, name))
    except BaseException:
        files.close()
        raise


@dataclass(slots=True)
class _Contents:
    """Blobs of one image in an archive.

    Attributes:
        root: digest of the image's manifest or index.
        root_type: media type of root by the archive; may be empty.
        built: blobs that are not files of the archive but were built from its files.
        paths: file names of blobs whose file name is not the digest.
    """

    root: str
    root_type: str = ""
    built: dict[str, bytes] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)

    def build(self, document: dict[str, Any]) -> tuple[str, int]:
        """Adds a document, and returns the digest and the size in bytes."""
        body = json.dumps(document, separators=(",", ":")).encode()
        digest = sha256_of(body)
        self.built[digest] = body
        return digest, len(body)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """An image in an archive's list: names, fields, and the descriptor of OCI's layout."""

    names: tuple[str, ...]
    fields: dict[str, Any]
    blob: Descriptor | None = None

    @property
    def identity(self) -> str:
        """Text that all entries of the same image share."""
        return self.blob.digest if self.blob else str(self.fields.get("Config"))


class ArchiveSource:
    """An `ImageSource` of the files in an archive, and of documents built from the files."""

    def __init__(self, files: ArchiveFiles, contents: _Contents) -> None:
        self._files = files
        self._contents = contents

    def manifest(self, selector: str) -> tuple[bytes, str]:
        """See `ImageSource.manifest`. Any tag means the image that `open_source` has chosen."""
        digest = selector if ":" in selector else self._contents.root
        body = self._contents.built.get(digest)
        if body is None:
            body = read(self._files, self._path(digest), DOCUMENT_LIMIT_BYTES)
            verify(body, digest, "archive")
        return body, self._contents.root_type if digest == self._contents.root else ""

    def attempts(self, digest: str, size: int) -> Sequence[Callable[[], Iterator[bytes]]]:
        """See `ImageSource.attempts`.

        Raises:
            DriverError: code CORRUPT; the file has another size than the manifest states.
        """
        built = self._contents.built.get(digest)
        if built is not None:
            return [lambda: iter([built])]
        path = self._path(digest)
        if (actual := self._files.size(path)) != size:
            raise refused(f"the blob {digest} has {actual} bytes, but its manifest states {size}")
        return [lambda: self._files.chunks(path)]

    def close(self) -> None:
        """Closes the archive."""
        self._files.close()

    def retries(self, error: DriverError) -> bool:  # noqa: ARG002
        """See `ImageSource.retries`. A second read of a file makes no sense."""
        return False

    def failure(self, errors: Sequence[DriverError]) -> DriverError:
        """See `ImageSource.failure`."""
        if errors[-1].code is not Code.CORRUPT:
            return errors[-1]
        return refused(f"a blob does not match its digest: {errors[-1].details}")

    def _path(self, digest: str) -> str:
        """Returns the file name of a blob.

        Raises:
            DriverError: code NOT_FOUND.
        """
        if path := self._contents.paths.get(digest):
            return path
        for path in _paths(digest):
            if self._files.size(path) is not None:
                return path
        raise DriverError(
            f"the image archive has no blob {digest}",
            resolution="save the image again, with all blobs of this machine's platform",
            code=Code.NOT_FOUND,
        )


def _contents(files: ArchiveFiles, name: Reference) -> _Contents:
    saved_fields = _document(files, "manifest.json")
    if isinstance(saved_fields, dict):
        # skopeo's `dir:`; blobs are files beside the manifest, named by their digests.
        body = read(files, "manifest.json", DOCUMENT_LIMIT_BYTES)
        return _Contents(sha256_of(body), built={sha256_of(body): body})
    layout_fields = _document(files, "index.json")
    if layout_fields is None and saved_fields is None:
        raise refused(
            "neither index.json nor manifest.json in the archive; `docker export` and a build with"
            " type=tar write files, but no image"
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
        # Some releases of docker write an index.json with less than manifest.json.
        listed = [entry for entry in listed if _has_file(files, entry)]
    # One entry is enough for an image with several names.
    chosen = [*{entry.identity: entry for entry in _choose(name, listed, saved)}.values()]
    if len(chosen) > _MAX_PLATFORMS:
        raise refused(
            f"{len(chosen)} images have the same name; more than {_MAX_PLATFORMS} are not read"
        )
    return _of_layout(chosen) if chosen[0].blob else _of_docker(files, chosen)


def _listed(fields: object) -> list[_Entry]:
    """Returns the images of OCI's layout, without signatures and attestations."""
    entries = fields.get("manifests") if isinstance(fields, dict) else None
    images: list[_Entry] = []
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict) or entry.get("artifactType"):
            continue
        blob = manifests.descriptor(entry, _IN_IT)
        attestation = blob.platform is not None and blob.platform.architecture == "unknown"
        if attestation or not manifests.may_be_document(blob.media_type):
            continue
        notes = entry.get("annotations")
        notes = notes if isinstance(notes, dict) else {}
        # Beside a full name, the ref name is only a tag, which two images may share.
        name = notes.get(_FULL_NAME) or notes.get(_REF_NAME)
        images.append(_Entry(names=(str(name),) if name else (), fields=entry, blob=blob))
    return images


def _saved(fields: object) -> list[_Entry]:
    """Returns the images of docker's manifest.json."""
    entries = fields if isinstance(fields, list) else []
    return [
        _Entry(names=_strings(entry.get("RepoTags")), fields=entry)
        for entry in entries
        if isinstance(entry, dict)
    ]


def _choose(name: Reference, listed: list[_Entry], saved: list[_Entry]) -> list[_Entry]:
    """Returns the entries of the name, else the entries of the only image.

    Several entries are one image for several platforms. `image.choice` chooses a platform later.

    Raises:
        DriverError: code INVALID; the archive has several images, and none has the name.
    """
    pools = (listed, saved)
    for same in (_is_name, _is_local_name, _is_tag):
        for pool in pools:
            if named := [entry for entry in pool if any(same(name, text) for text in entry.names)]:
                return named
    if any(pools) and all(_is_one_image(pool) for pool in pools):
        return listed or saved
    count = max(len({entry.identity for entry in pool}) for pool in pools)
    names = sorted({text for pool in pools for entry in pool for text in entry.names})
    raise DriverError(
        f"the image archive has {count} images, and none is {name}",
        details=f"names in the archive: {', '.join(names) or 'none'}"[:500],
        resolution="set image to one of these names",
        code=Code.INVALID,
    )


def _is_one_image(pool: list[_Entry]) -> bool:
    """Returns True for entries of one image, for one platform or several."""
    if len({entry.identity for entry in pool}) <= 1:
        return True
    names = {entry.names for entry in pool}
    platforms = {str(entry.blob.platform) for entry in pool if entry.blob and entry.blob.platform}
    return len(names) == 1 and (names != {()} or len(platforms) == len(pool))


def _is_name(name: Reference, text: str) -> bool:
    """Returns True for the complete name, in any form."""
    try:
        return str(reference.parse(text)) == str(name)
    except DriverError:
        return False


def _is_local_name(name: Reference, text: str) -> bool:
    """Returns True for the name of a local build of podman or buildah, which no registry has."""
    return text.startswith("localhost/") and _is_name(name, text.removeprefix("localhost/"))


def _is_tag(name: Reference, text: str) -> bool:
    """Returns True for a bare tag, such as skopeo, buildah and umoci write."""
    return text == name.tag


def _of_layout(entries: list[_Entry]) -> _Contents:
    if len(entries) == 1 and (blob := entries[0].blob):
        return _Contents(blob.digest, blob.media_type)
    return _index_of([entry.fields for entry in entries], _Contents(""))


def _of_docker(files: ArchiveFiles, entries: list[_Entry]) -> _Contents:
    contents = _Contents("")
    saved = [_saved_image(files, entry, contents) for entry in entries]
    if len({image["digest"] for image in saved}) > 1:
        return _index_of(saved, contents)
    contents.root, contents.root_type = saved[0]["digest"], manifests.OCI_MANIFEST
    return contents


def _index_of(entries: list[dict[str, Any]], contents: _Contents) -> _Contents:
    """Adds an index of the entries as the root. Of two entries for a platform the last counts."""
    kept = ("mediaType", "digest", "size", "platform")
    listed = [{key: entry[key] for key in kept if key in entry} for entry in reversed(entries)]
    document = {"schemaVersion": 2, "mediaType": manifests.OCI_INDEX, "manifests": listed}
    contents.root, _ = contents.build(document)
    contents.root_type = manifests.OCI_INDEX
    return contents


def _saved_image(files: ArchiveFiles, entry: _Entry, contents: _Contents) -> dict[str, Any]:
    """Builds a manifest for an image of docker's manifest.json, and returns the descriptor."""
    config = read(files, str(entry.fields.get("Config") or "no config"), CONFIG_LIMIT_BYTES)
    layers = _strings(entry.fields.get("Layers"))
    diff_ids = parse_config(config, _IN_IT).diff_ids
    if len(layers) != len(diff_ids):
        raise refused(f"the config has {len(diff_ids)} layers, manifest.json has {len(layers)}")
    contents.built[sha256_of(config)] = config
    pairs = zip(layers, diff_ids, strict=True)
    digest, size = contents.build(
        {
            "schemaVersion": 2,
            "mediaType": manifests.OCI_MANIFEST,
            "config": {
                "mediaType": manifests.OCI_CONFIG,
                "digest": sha256_of(config),
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
        raise refused(f"no {layer[:128]!r} in the archive")
    suffix, digest = _compression(files, layer, diff_id)
    contents.paths[digest] = layer
    return {"mediaType": f"{manifests.OCI_LAYER}{suffix}", "digest": digest, "size": size}


def _compression(files: ArchiveFiles, name: str, diff_id: str) -> tuple[str, str]:
    """Returns a layer's suffix of the media type, and its digest.

    The digest of an uncompressed layer is the diff id, which containerd checks.
    """
    chunks = files.chunks(name)
    first = next(chunks, b"")
    suffix = _SUFFIXES.get(first[:2], "")
    if not suffix:
        return "", diff_id
    hashed = hashlib.sha256(first)
    for chunk in chunks:
        hashed.update(chunk)
    return suffix, f"sha256:{hashed.hexdigest()}"


def _has_file(files: ArchiveFiles, entry: _Entry) -> bool:
    return entry.blob is not None and any(
        files.size(path) is not None for path in _paths(entry.blob.digest)
    )


def _paths(digest: str) -> tuple[str, ...]:
    """Returns possible file names of a blob, in OCI's layout and in skopeo's directory."""
    algorithm, _, value = digest.partition(":")
    return f"blobs/{algorithm}/{value}", value, f"{value}.manifest.json"


def _document(files: ArchiveFiles, name: str) -> Any:
    """Returns the content of a JSON file of the archive; None for a missing or blank file."""
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
