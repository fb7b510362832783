"""Manifests and indexes: one reader for registries, archives and what containerd has.

The document itself tells of which kind it is, and the media types that others gave it must agree.
A document that another program could take for another kind is refused (CVE-2021-41190).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from containerd.image import platforms
from containerd.image.platforms import Platform
from proto.errors import Code, DriverError

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
# What servers and old tools write who do not know the type.
_SAY_NOTHING = frozenset(
    {
        "",
        "application/json",
        "application/octet-stream",
        "binary/octet-stream",
        "text/json",
        "text/plain",
    }
)
# Keys that only one kind has. Go's JSON reader takes them in any case of letters.
_INDEX, _MANIFEST = "index", "manifest"
_KINDS = {"manifests": _INDEX, "layers": _MANIFEST, "config": _MANIFEST}
_JUDGED = (*_KINDS, "mediaType", "fsLayers", "schemaVersion")
_JUDGED_LOWER = {key.lower(): key for key in _JUDGED}
_LAYER_WORD = re.compile(r"\.layer\.|\.rootfs\.")
_ATTESTATION = "vnd.docker.reference.type"
_UNKNOWN = Platform(os="unknown", architecture="unknown")


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """Names a blob of the image; size is in bytes.

    platform is what an index says of an entry, None where it says nothing; os_features is True
    where the entry wants more than Linux. has_urls is True where the blob may lie elsewhere.
    """

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    os_features: bool = False
    has_urls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One platform's image: its config and its layers, lowest first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    artifact_type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Manifests and further indexes, in their order."""

    media_type: str
    entries: tuple[Descriptor, ...]


def clean_type(media_type: object) -> str:
    """Returns a media type without its parameters, in the letters that the standards use."""
    return media_type.partition(";")[0].strip().lower() if isinstance(media_type, str) else ""


def may_be_document(media_type: str) -> bool:
    """Returns False where the type is that of something else than a manifest or an index."""
    return media_type in _SAY_NOTHING or bool(_kind_of(media_type))


def read(body: bytes, stated: str, name: str) -> Manifest | Index:
    """Reads a manifest or an index.

    Args:
        body: the document.
        stated: the media type that a header, a descriptor or containerd gives it; it may be empty.
        name: the image, for errors.

    Raises:
        DriverError: CORRUPT for one that is damaged or ambiguous, UNSUPPORTED for one that is of
            the old schema 1 or no image's.
    """
    fields = json_object(body, name, _once)
    stated, said = clean_type(stated), clean_type(fields.get("mediaType"))
    if fields.get("schemaVersion") == 1 or "fsLayers" in fields or _SCHEMA_1.fullmatch(said):
        _refuse_schema_1(name)
    if _ARTIFACT in {stated, said}:
        raise not_an_image(name, clean_type(fields.get("artifactType")) or _ARTIFACT)
    kind = _kind(fields, name)
    for media_type in (stated, said):
        if _kind_of(media_type) not in {"", kind}:
            raise _ambiguous(name, f"it is called {media_type[:100]} and is a document of {kind}s")
    types = INDEX_TYPES if kind == _INDEX else MANIFEST_TYPES
    default = OCI_INDEX if kind == _INDEX else OCI_MANIFEST
    media_type = next((one for one in (said, stated) if one in types), default)
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
        raise damaged(name, "its manifest has no config")
    return Manifest(
        media_type=media_type,
        config=descriptor(config, name),
        layers=tuple(descriptor(layer, name) for layer in layers),
        artifact_type=clean_type(fields.get("artifactType")),
    )


def _kind(fields: dict[str, Any], name: str) -> str:
    for key in fields:
        meant = _JUDGED_LOWER.get(key.lower(), key)
        if meant != key:
            raise _ambiguous(name, f"it has {key[:100]!r}, which some programs take for {meant}")
    has = [key for key in _KINDS if key in fields]
    kinds = {_KINDS[key] for key in has}
    if len(kinds) > 1:
        raise _ambiguous(name, f"it has both {has[0]} and {has[1]}")
    if not kinds:
        raise damaged(name, "it has neither layers nor manifests")
    return kinds.pop()


def _kind_of(media_type: str) -> str:
    """Returns the kind that a media type names; empty where it names none."""
    if media_type in INDEX_TYPES:
        return _INDEX
    return _MANIFEST if media_type in MANIFEST_TYPES else ""


def descriptor(fields: dict[str, Any], name: str) -> Descriptor:
    """Reads one descriptor of a manifest or an index.

    Raises:
        DriverError: CORRUPT; it has no proper digest or size.
    """
    digest, size = fields.get("digest"), fields.get("size")
    # A bool is an int to Python, and to JSON's readers in other languages it is none.
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
        return _UNKNOWN, False  # buildkit's statement about another entry
    if not isinstance(stated, dict):
        return None, False
    platform = platforms.of(stated)
    # An OS alone leaves the config to tell the rest, if it is this one.
    known = platform.architecture or platform.os != Platform().os
    return platform if known else None, bool(stated.get("os.features"))


def artifact_type(manifest: Manifest) -> str:
    """Returns the type of an artifact that is no image; empty for an image."""
    config = manifest.config.media_type
    strange = config not in _CONFIG_TYPES | _SAY_NOTHING
    layers = [layer.media_type for layer in manifest.layers]
    # An image's layers may be of a kind that is not known here, such as squashfs, or of none.
    if not strange and (_SAY_NOTHING.issuperset(layers) or any(map(_LAYER_WORD.search, layers))):
        return ""
    types = (manifest.artifact_type, config if strange and config != _EMPTY else "", *layers)
    return next((one for one in types if one), config)


def not_an_image(name: str, artifact: str) -> DriverError:
    """Returns the refusal of an artifact."""
    return DriverError(
        f"{name} is not an image",
        details=f"it is an artifact of type {artifact[:100]!r}",
        resolution="set image to one with a root file system; charts, signatures and other"
        " artifacts have no program to run",
        code=Code.UNSUPPORTED,
    )


class _TwiceError(Exception):
    """A key stands twice in one object: readers differ in which one they take."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(next(key for key in keys if keys.count(key) > 1))
    return fields


def json_object(
    body: bytes, name: str, hook: Callable[[list[tuple[str, Any]]], dict[str, Any]] = dict
) -> dict[str, Any]:
    """Reads a JSON object, in UTF-8 as every other reader of images does.

    Raises:
        DriverError: CORRUPT.
    """
    try:
        fields = json.loads(body.decode(), object_pairs_hook=hook)
    except _TwiceError as error:
        raise _ambiguous(name, f"it has the key {str(error)[:100]!r} twice") from None
    except (ValueError, RecursionError) as error:
        raise damaged(name, f"not JSON: {type(error).__name__}") from None
    if not isinstance(fields, dict):
        raise damaged(name, "not a JSON object")
    return fields


def damaged(name: str, why: str) -> DriverError:
    """Returns the refusal of an image that nobody can read."""
    return DriverError(
        f"image {name} is damaged",
        details=why,
        resolution="push it again, or pull it from another registry",
        code=Code.CORRUPT,
    )


def _objects(fields: dict[str, Any], key: str, name: str, limit: int) -> list[dict[str, Any]]:
    value = fields.get(key)
    items = [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
    if len(items) > limit:
        raise damaged(name, f"it has too many {key}: {len(items)}, more than {limit}")
    return items


def _ambiguous(name: str, why: str) -> DriverError:
    return DriverError(
        f"image {name} is ambiguous",
        details=f"{why}, so that two programs may run two different images from it",
        resolution="do not trust it; push it again with a current docker, podman or buildah",
        code=Code.CORRUPT,
    )


def _refuse_schema_1(name: str) -> NoReturn:
    raise DriverError(
        f"image {name} has a manifest of the old schema 1",
        resolution="push it again with a current docker, podman or buildah",
        code=Code.UNSUPPORTED,
    )
