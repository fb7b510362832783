"""Media types of layers, and the layers that the driver can unpack."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from proto.errors import Code, DriverError
from proto.values import dataclass

if TYPE_CHECKING:
    from containerd.image.manifests import Descriptor

ZSTD = "zstd"
_COMPRESSIONS = frozenset({"", "gzip", ZSTD})
_MAX_LAYER_BYTES = 1 << 50
_LAYER = re.compile(
    r"application/vnd\."
    r"(?:oci\.image\.layer\.(?P<oci>nondistributable\.)?v1"
    r"|docker\.image\.rootfs\.(?P<docker>foreign\.)?diff)"
    r"\.tar(?P<suffixes>(?:[.+][a-z0-9]+)*)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerType:
    """Properties of a layer by its media type. compression is empty for an uncompressed layer.

    Registries need not have a foreign layer.
    """

    compression: str
    foreign: bool
    encrypted: bool


def layer_type(media_type: str) -> LayerType | None:
    """Reads a media type; None for a type that is no layer of a root file system."""
    matched = _LAYER.fullmatch(media_type)
    if matched is None:
        return None
    suffixes = re.split(r"[.+]", matched["suffixes"])[1:]
    return LayerType(
        compression="+".join(suffix for suffix in suffixes if suffix != "encrypted"),
        foreign=bool(matched["oci"] or matched["docker"]),
        encrypted="encrypted" in suffixes,
    )


def check(layer: Descriptor, name: str) -> LayerType:
    """Returns the type of a layer; refuses layers of other types, encrypted layers, huge layers.

    Args:
        layer: the layer.
        name: the image, for errors.

    Raises:
        DriverError: UNSUPPORTED, or CORRUPT for a size that no disk can hold.
    """
    checked = layer_type(layer.media_type)
    if checked is not None and checked.encrypted:
        raise DriverError(
            f"image {name} has encrypted layers, which this driver cannot decrypt",
            details=f"{layer.media_type[:100]!r}",
            resolution="push the image without encryption",
            code=Code.UNSUPPORTED,
        )
    if checked is None or checked.compression not in _COMPRESSIONS:
        raise DriverError(
            f"image {name} has a layer that cannot be unpacked",
            details=f"{layer.media_type[:100]!r}",
            resolution="build the image with layers in gzip, zstd or plain tar",
            code=Code.UNSUPPORTED,
        )
    if layer.size > _MAX_LAYER_BYTES:
        raise DriverError(
            f"image {name} has a layer that no disk can hold",
            details=f"{layer.size} bytes"[:100],
            code=Code.CORRUPT,
        )
    return checked


def foreign_refusal(layer: Descriptor, name: str, error: DriverError) -> DriverError:
    """Returns the error of a foreign layer that the image's source does not have."""
    where = "only at the URLs in its manifest" if layer.has_urls else "nowhere"
    return DriverError(
        f"image {name} has a foreign layer that is {where}",
        details=f"{layer.media_type[:100]!r} {layer.digest}: {error}"[:500],
        resolution="push the image with its foreign layers (docker's daemon.json:"
        ' "allow-nondistributable-artifacts"): this driver fetches from the image\'s registry only',
        code=Code.UNSUPPORTED,
    )
