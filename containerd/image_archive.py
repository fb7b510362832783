"""An image in an archive: OCI's layout, or what `docker save` writes, made to look like OCI's.

containerd checks every blob's digest when it is stored, so an archive brings what it says or
nothing; it is a job's own, and what it brings gets a name of its own (`puller.loaded_name`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from containerd import images, reference, registry
from containerd.archive_files import ArchiveFiles, open_archive, read
from containerd.tar_index import refused
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from containerd.pull_wire import Archive
    from containerd.reference import Reference

_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_SUFFIXES = {b"\x1f\x8b": "+gzip", b"\x28\xb5": "+zstd"}


def open_source(archive: Archive, name: Reference, deadline: float) -> ArchiveSource:
    """The image of this name in an archive, or the only image that it has.

    Raises:
        DriverError: there is no archive, or none that has the image.
    """
    files = open_archive(archive, deadline)
    try:
        return _image(files, name)
    except BaseException:
        files.close()
        raise


class ArchiveSource:
    """See `image_source.ImageSource`; blobs are files of the archive, or made up here.

    Args:
        files: the archive.
        root: digest of the image's manifest or index.
        made: blobs that are no files.
        places: file names of blobs that do not lie in blobs/.
    """

    def __init__(
        self,
        files: ArchiveFiles,
        root: str,
        made: dict[str, bytes] | None = None,
        places: dict[str, str] | None = None,
    ) -> None:
        self._files = files
        self._root = root
        self._made = made or {}
        self._places = places or {}

    def manifest(self, selector: str) -> tuple[bytes, str]:
        """See `ImageSource`; a tag was chosen already."""
        digest = selector if ":" in selector else self._root
        body = self._made.get(digest)
        if body is None:
            place = _place(digest)
            if self._files.size(place) is None:
                raise DriverError(f"the image archive has no {digest}", code=Code.INVALID)
            body = read(self._files, place, images.MANIFEST_LIMIT_BYTES)
            registry.verify(body, digest, "archive")
        fields = _json(body, digest)
        kind = fields.get("mediaType") if isinstance(fields, dict) else None
        return body, kind if isinstance(kind, str) and kind else registry.guess_type(body)

    def tries(self, digest: str, size: int) -> Sequence[Callable[[], Iterator[bytes]]]:  # noqa: ARG002
        """See `ImageSource`."""
        made = self._made.get(digest)
        if made is not None:
            return [lambda: iter([made])]
        place = self._places.get(digest) or _place(digest)
        if self._files.size(place) is None:
            raise refused(f"it has no blob {digest}")
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


def _image(files: ArchiveFiles, name: Reference) -> ArchiveSource:
    if files.size("index.json") is not None and files.size("oci-layout") is not None:
        return _layout(files, name)
    if files.size("manifest.json") is not None:
        return _docker(files, name)
    raise refused("it has neither index.json nor manifest.json")


def _layout(files: ArchiveFiles, name: Reference) -> ArchiveSource:
    fields = _json(read(files, "index.json", images.MANIFEST_LIMIT_BYTES), "index.json")
    listed = fields.get("manifests") if isinstance(fields, dict) else None
    found: list[tuple[str, tuple[str, ...]]] = []
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict):
            notes = entry.get("annotations")
            notes = notes if isinstance(notes, dict) else {}
            called = tuple(str(notes[key]) for key in _NAMES if key in notes)
            found.append((images.descriptor(entry, "in the archive").digest, called))
    if name.digest:
        return ArchiveSource(files, name.digest)
    return ArchiveSource(files, found[_choose(name, [called for _, called in found])][0])


def _docker(files: ArchiveFiles, name: Reference) -> ArchiveSource:
    """`docker save`: a config, and layers as tars, uncompressed as a rule."""
    listed = _json(read(files, "manifest.json", images.MANIFEST_LIMIT_BYTES), "manifest.json")
    entries = [entry for entry in listed if isinstance(entry, dict)] if _is_list(listed) else []
    tags = [tuple(str(tag) for tag in _strings(entry.get("RepoTags"))) for entry in entries]
    entry = entries[_choose(name, tags)]
    config = read(files, str(entry.get("Config") or "no config"), images.CONFIG_LIMIT_BYTES)
    layers = [str(layer) for layer in _strings(entry.get("Layers"))]
    diff_ids = images.parse_config(config, "in the archive").diff_ids
    if len(layers) != len(diff_ids):
        raise refused(f"its config has {len(diff_ids)} layers, its manifest {len(layers)}")
    made = {_digest(config): config}
    places: dict[str, str] = {}
    described = [{"mediaType": _OCI_CONFIG, "digest": _digest(config), "size": len(config)}]
    for layer, diff_id in zip(layers, diff_ids, strict=True):
        size = files.size(layer)
        if size is None:
            raise refused(f"it has no {layer[:128]!r}")
        suffix, digest = _layer(files, layer, diff_id)
        places[digest] = layer
        described.append({"mediaType": f"{_LAYER}{suffix}", "digest": digest, "size": size})
    document = {
        "schemaVersion": 2,
        "mediaType": _OCI_MANIFEST,
        "config": described[0],
        "layers": described[1:],
    }
    manifest = json.dumps(document, separators=(",", ":")).encode()
    made[_digest(manifest)] = manifest
    return ArchiveSource(files, _digest(manifest), made, places)


def _layer(files: ArchiveFiles, name: str, diff_id: str) -> tuple[str, str]:
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


def _choose(name: Reference, called: Sequence[tuple[str, ...]]) -> int:
    """Which image of an archive: the one of this name, else the only one."""
    named = [index for index, names in enumerate(called) if any(_same(name, n) for n in names)]
    if named:
        return named[-1]
    if len(called) == 1:
        return 0
    there = ", ".join(sorted({text for names in called for text in names})) or "none by a name"
    raise DriverError(
        f"the image archive has {len(called)} images, and none of them is {name}",
        details=f"it has {there}"[:500],
        resolution="set image to the name of the one to run",
        code=Code.INVALID,
    )


def _same(name: Reference, text: str) -> bool:
    """A whole name in any form, or a bare tag, as skopeo and buildah write it."""
    if text == name.tag:
        return True
    try:
        return str(reference.parse(text)) == str(name)
    except DriverError:
        return False


def _place(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    return f"blobs/{algorithm}/{value}"


def _digest(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def _json(body: bytes, what: str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise refused(f"{what} is not JSON") from None


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _strings(value: object) -> list[object]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
