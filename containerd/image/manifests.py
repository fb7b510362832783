"""Manifests and indexes: one reader for registries, archives and containerd's content store.

The document's own keys decide between manifest and index. The media types of headers and
descriptors must agree. A document that another program could read as the other kind is refused
(CVE-2021-41190).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

from containerd.image import platforms
from containerd.image.platforms import Platform
from proto.errors import Code, DriverError
from proto.values import dataclass

DOCUMENT_LIMIT_BYTES = 4 * 1024 * 1024
_MAX_LAYERS = 512
_MAX_ENTRIES = 1024

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
INDEX_TYPES = frozenset({OCI_INDEX, "application/vnd.docker.distribution.manifest.list.v2+json"})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, "application/vnd.docker.distribution.manifest.v2+json"})
_ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"
_SCHEMA_1 = re.compile(r"application/vnd\.docker\.distribution\.manifest\.v1\+(json|prettyjws)")
_EMPTY = "application/vnd.oci.empty.v1+json"
_CONFIG_TYPES = frozenset({OCI_CONFIG, "application/vnd.docker.container.image.v1+json"})
# Types of servers and old tools that do not know the real type.
_UNSPECIFIC = frozenset(
    {
        "",
        "application/json",
        "application/octet-stream",
        "binary/octet-stream",
        "text/json",
        "text/plain",
    }
)
# Keys that only one kind has. Go's JSON reader ignores the case of their letters.
_INDEX, _MANIFEST = "index", "manifest"
_KINDS = {"manifests": _INDEX, "layers": _MANIFEST, "config": _MANIFEST}
_DECIDING_KEYS = (*_KINDS, "mediaType", "fsLayers", "schemaVersion")
_KEYS_BY_LOWER_CASE = {key.lower(): key for key in _DECIDING_KEYS}
_LAYER_WORD = re.compile(r"\.layer\.|\.rootfs\.")
_ATTESTATION = "vnd.docker.reference.type"
_UNKNOWN = Platform(os="unknown", architecture="unknown")


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A reference to a blob of the image; size is in bytes.

    platform is the platform that an index states for an entry; None if not stated. os_features is
    True if the entry needs more than Linux. has_urls is True if the blob may be at other URLs.
    """

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    os_features: bool = False
    has_urls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Image of one platform: config, and layers with the lowest first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    artifact_type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """List of manifests and further indexes, in order."""

    media_type: str
    entries: tuple[Descriptor, ...]


def clean_type(media_type: object) -> str:
    """Returns a media type without parameters, in lower case as in the standards."""
    return media_type.partition(";")[0].strip().lower() if isinstance(media_type, str) else ""


def may_be_document(media_type: str) -> bool:
    """Returns False for a media type that is neither a manifest's nor an index's."""
    return media_type in _UNSPECIFIC or bool(_kind_of(media_type))


def read(body: bytes, stated: str, name: str) -> Manifest | Index:
    """Reads a manifest or an index.

    Args:
        body: the document.
        stated: the media type by a header, a descriptor or containerd; may be empty.
        name: the image, for errors.

    Raises:
        DriverError: CORRUPT for a damaged or ambiguous document, UNSUPPORTED for the old schema 1
            and for artifacts that are no image.
    """
    fields = json_object(body, name, _unique_keys)
    stated, own = clean_type(stated), clean_type(fields.get("mediaType"))
    if fields.get("schemaVersion") == 1 or "fsLayers" in fields or _SCHEMA_1.fullmatch(own):
        _refuse_schema_1(name)
    if _ARTIFACT in {stated, own}:
        raise not_an_image(name, clean_type(fields.get("artifactType")) or _ARTIFACT)
    kind = _kind(fields, name)
    for media_type in (stated, own):
        if _kind_of(media_type) not in {"", kind}:
            raise _ambiguous(
                name, f"the media type is {media_type[:100]}, the keys are of kind {kind}"
            )
    types = INDEX_TYPES if kind == _INDEX else MANIFEST_TYPES
    default = OCI_INDEX if kind == _INDEX else OCI_MANIFEST
    media_type = next((entry for entry in (own, stated) if entry in types), default)
    if kind == _INDEX:
        entries = _objects(fields, "manifests", name, _MAX_ENTRIES)
        return Index(
            media_type=media_type, entries=tuple(descriptor(entry, name) for entry in entries)
        )
    return _manifest(fields, media_type, name)


def _manifest(fields: dict[str, Any], media_type: str, name: str) -> Manifest:
    layers = _objects(fields, "layers", name, _MAX_LAYERS)
    config = fields.get("config")
    if not isinstance(config, dict):
        raise damaged(name, "the manifest has no config")
    return Manifest(
        media_type=media_type,
        config=descriptor(config, name),
        layers=tuple(descriptor(layer, name) for layer in layers),
        artifact_type=clean_type(fields.get("artifactType")),
    )


def _kind(fields: dict[str, Any], name: str) -> str:
    for key in fields:
        meant = _KEYS_BY_LOWER_CASE.get(key.lower(), key)
        if meant != key:
            raise _ambiguous(name, f"some programs read its key {key[:100]!r} as {meant}")
    has = [key for key in _KINDS if key in fields]
    kinds = {_KINDS[key] for key in has}
    if len(kinds) > 1:
        raise _ambiguous(name, f"the document has both {has[0]} and {has[1]}")
    if not kinds:
        raise damaged(name, "the document has neither layers nor manifests")
    return kinds.pop()


def _kind_of(media_type: str) -> str:
    """Returns the kind of a media type; empty for a type of neither kind."""
    if media_type in INDEX_TYPES:
        return _INDEX
    return _MANIFEST if media_type in MANIFEST_TYPES else ""


def descriptor(fields: dict[str, Any], name: str) -> Descriptor:
    """Reads one descriptor of a manifest or an index.

    Args:
        fields: the descriptor's JSON object.
        name: the image, for errors.

    Raises:
        DriverError: CORRUPT; digest or size is missing or malformed.
    """
    digest, size = fields.get("digest"), fields.get("size")
    # A bool is an int in Python, but not for JSON readers of other languages.
    if not isinstance(digest, str) or type(size) is not int or size < 0:
        raise damaged(name, "a descriptor has no digest or size")
    algorithm, _, value = digest.partition(":")
    lengths = {"sha256": 64, "sha512": 128}
    if lengths.get(algorithm) != len(value) or not set(value) <= set("0123456789abcdef"):
        raise damaged(name, f"{digest[:150]!r} is not a digest")
    platform, features = _platform(fields)
    return Descriptor(
        media_type=clean_type(fields.get("mediaType")),
        digest=digest,
        size=size,
        platform=platform,
        os_features=features,
        has_urls=bool(fields.get("urls")),
    )


def _platform(fields: dict[str, Any]) -> tuple[Platform | None, bool]:
    notes, stated = fields.get("annotations"), fields.get("platform")
    if isinstance(notes, dict) and _ATTESTATION in notes:
        return _UNKNOWN, False  # buildkit's attestation of another entry
    if not isinstance(stated, dict):
        return None, False
    platform = platforms.of(stated)
    # With Linux alone, the image's config decides.
    known = platform.architecture or platform.os != Platform().os
    return platform if known else None, bool(stated.get("os.features"))


def artifact_type(manifest: Manifest) -> str:
    """Returns the type of an artifact that is not an image; empty for an image."""
    config = manifest.config.media_type
    strange = config not in _CONFIG_TYPES | _UNSPECIFIC
    layers = [layer.media_type for layer in manifest.layers]
    # Layers of an image may have an unknown type, such as squashfs, or an unspecific type.
    if not strange and (_UNSPECIFIC.issuperset(layers) or any(map(_LAYER_WORD.search, layers))):
        return ""
    types = (manifest.artifact_type, config if strange and config != _EMPTY else "", *layers)
    return next((media_type for media_type in types if media_type), config)


def not_an_image(name: str, artifact: str) -> DriverError:
    """Returns the error of an artifact that is not an image."""
    return DriverError(
        f"{name} is not an image",
        details=f"an artifact of type {artifact[:100]!r}",
        resolution="set image to an image with a root file system; charts, signatures and other"
        " artifacts have no program to run",
        code=Code.UNSUPPORTED,
    )


class _DuplicateKeyError(Exception):
    """A key is twice in one object: some readers use the first value, others the last."""


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _DuplicateKeyError(next(key for key in keys if keys.count(key) > 1))
    return fields


def json_object(
    body: bytes, name: str, hook: Callable[[list[tuple[str, Any]]], dict[str, Any]] = dict
) -> dict[str, Any]:
    """Reads a JSON object in UTF-8, the encoding of all readers of images.

    Args:
        body: the text.
        name: the image, for errors.
        hook: builds an object from its pairs.

    Raises:
        DriverError: CORRUPT.
    """
    try:
        fields = json.loads(body.decode(), object_pairs_hook=hook)
    except _DuplicateKeyError as error:
        raise _ambiguous(name, f"the key {str(error)[:100]!r} is twice in one object") from None
    except (ValueError, RecursionError) as error:
        raise damaged(name, f"not JSON: {type(error).__name__}") from None
    if not isinstance(fields, dict):
        raise damaged(name, "not a JSON object")
    return fields


def damaged(name: str, reason: str) -> DriverError:
    """Returns the error of an image that cannot be read."""
    return DriverError(
        f"image {name} is damaged",
        details=reason,
        resolution="push the image again, or pull the image from another registry",
        code=Code.CORRUPT,
    )


def sha256_of(body: bytes) -> str:
    """Returns the digest of a blob: sha256:HEX."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def _objects(fields: dict[str, Any], key: str, name: str, limit: int) -> list[dict[str, Any]]:
    value = fields.get(key)
    items = [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
    if len(items) > limit:
        raise damaged(name, f"too many {key}: {len(items)}, more than {limit}")
    return items


def _ambiguous(name: str, reason: str) -> DriverError:
    return DriverError(
        f"image {name} is ambiguous",
        details=f"{reason}, so that two programs may run two different images",
        resolution="do not trust the image; push it again with a current docker, podman or buildah",
        code=Code.CORRUPT,
    )


def _refuse_schema_1(name: str) -> NoReturn:
    raise DriverError(
        f"image {name} has a manifest of the old schema 1",
        resolution="push it again with a current docker, podman or buildah",
        code=Code.UNSUPPORTED,
    )
