"""What an image is made of: from its name to this platform's manifest, config and layers."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from containerd.client import Containerd
    from containerd.records import ImageRecord

MANIFEST_LIMIT_BYTES = 4 * 1024 * 1024
CONFIG_LIMIT_BYTES = 8 * 1024 * 1024
_MAX_LAYERS = 512

INDEX_TYPES = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
MANIFEST_TYPES = frozenset(
    {
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    }
)

# uname's machine → (architecture, variants from best to worst) in the terms of OCI images.
_MACHINES: dict[str, tuple[str, tuple[str, ...]]] = {
    "x86_64": ("amd64", ("",)),
    "aarch64": ("arm64", ("v8", "")),
    "armv7l": ("arm", ("v7", "v6", "")),
    "riscv64": ("riscv64", ("",)),
    "ppc64le": ("ppc64le", ("",)),
    "s390x": ("s390x", ("",)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """Names a blob of the image; size is in bytes."""

    media_type: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One platform's image: its config and its layers, lowest first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """What the image says about running it. diff_ids are the uncompressed layers, lowest first."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    stop_signal: str = ""
    labels: Mapping[str, str] | None = None
    diff_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedImage:
    """An image read from the content store; chain_id names its topmost committed snapshot."""

    config: ImageConfig
    chain_id: str


async def load(containerd: Containerd, record: ImageRecord) -> LoadedImage:
    """Reads manifest and config of an image for this platform.

    Raises:
        DriverError: NOT_FOUND when a blob is missing, CORRUPT when one is not what it should be.
    """
    media_type, digest = record.media_type, record.digest
    body = await containerd.read_content(digest, MANIFEST_LIMIT_BYTES)
    if media_type in INDEX_TYPES:
        chosen = choose_manifest(body, record.name)
        body = await containerd.read_content(chosen.digest, MANIFEST_LIMIT_BYTES)
    manifest = parse_manifest(body, record.name)
    config = parse_config(
        await containerd.read_content(manifest.config.digest, CONFIG_LIMIT_BYTES), record.name
    )
    return LoadedImage(config=config, chain_id=chain_id(config.diff_ids))


def host_platform(machine: str = "") -> tuple[str, tuple[str, ...]]:
    """(architecture, variants from best to worst) of this machine or of uname's `machine`."""
    machine = machine or os.uname().machine
    return _MACHINES.get(machine, (machine, ("",)))


def choose_manifest(body: bytes, name: str, machine: str = "") -> Descriptor:
    """The manifest of an index that this machine can run.

    Raises:
        DriverError: UNSUPPORTED, with the platforms that the image has.
    """
    architecture, variants = host_platform(machine)
    found: dict[str, Descriptor] = {}
    others: list[str] = []
    entries = _list(_object(body, name), "manifests")
    if len(entries) == 1 and not entries[0].get("platform"):
        # `ctr images import --index-name` wraps a single image so; its config has the platform.
        return descriptor(entries[0], name)
    for entry in entries:
        platform = entry.get("platform") or {}
        text = "/".join(
            str(platform.get(key)) for key in ("os", "architecture", "variant") if platform.get(key)
        )
        others.append(text or "unnamed")
        if platform.get("os") != "linux" or platform.get("architecture") != architecture:
            continue
        # The first one of a kind wins, as in containerd's own matcher.
        found.setdefault(str(platform.get("variant") or ""), descriptor(entry, name))
    for variant in variants:
        if variant in found:
            return found[variant]
    raise DriverError(
        f"image {name} has nothing for linux/{architecture}",
        details=f"it has {', '.join(sorted(set(others))) or 'no manifests'}"[:500],
        resolution="use an image built for this machine's architecture",
        code=Code.UNSUPPORTED,
    )


def parse_manifest(body: bytes, name: str) -> Manifest:
    """A manifest in OCI's or Docker's form.

    Raises:
        DriverError: CORRUPT, or UNSUPPORTED for the old schema 1.
    """
    fields = _object(body, name)
    if fields.get("schemaVersion") == 1:
        raise DriverError(
            f"image {name} has a manifest of the old schema 1",
            resolution="push it again with a current docker, podman or buildah",
            code=Code.UNSUPPORTED,
        )
    layers = _list(fields, "layers")
    config = fields.get("config")
    if not isinstance(config, dict) or len(layers) > _MAX_LAYERS:
        raise _corrupt(name, "its manifest has no config or too many layers")
    return Manifest(
        config=descriptor(config, name),
        layers=tuple(descriptor(layer, name) for layer in layers),
    )


def parse_config(body: bytes, name: str) -> ImageConfig:
    """An image config.

    Raises:
        DriverError: CORRUPT.
    """
    fields = _object(body, name)
    run = fields.get("config") or {}
    rootfs = fields.get("rootfs")
    if not isinstance(run, dict) or not isinstance(rootfs, dict):
        raise _corrupt(name, "its config has no rootfs")
    labels = run.get("Labels") or {}
    if not isinstance(labels, dict):
        raise _corrupt(name, "Labels is not a map")
    return ImageConfig(
        entrypoint=_strings(run, "Entrypoint", name),
        cmd=_strings(run, "Cmd", name),
        env=_strings(run, "Env", name),
        user=_string(run, "User", name),
        working_dir=_string(run, "WorkingDir", name),
        stop_signal=_string(run, "StopSignal", name),
        labels={str(key): str(value) for key, value in labels.items()},
        diff_ids=_strings(rootfs, "diff_ids", name),
    )


def chain_id(diff_ids: tuple[str, ...]) -> str:
    """The name of the snapshot that has all these layers: OCI image-spec, config, ChainID."""
    chain = ""
    for diff_id in diff_ids:
        if not chain:
            chain = diff_id
        else:
            chain = f"sha256:{hashlib.sha256(f'{chain} {diff_id}'.encode()).hexdigest()}"
    return chain


def _object(body: bytes, name: str) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _corrupt(name, f"not JSON: {type(error).__name__}") from None
    if not isinstance(fields, dict):
        raise _corrupt(name, "not a JSON object")
    return fields


def _list(fields: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = fields.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def descriptor(fields: dict[str, Any], name: str) -> Descriptor:
    """One descriptor of a manifest or an index.

    Raises:
        DriverError: CORRUPT; it has no proper digest or size.
    """
    digest, size = fields.get("digest"), fields.get("size")
    # A bool is an int to Python, and to JSON's readers in other languages it is none.
    if not isinstance(digest, str) or type(size) is not int or size < 0:
        raise _corrupt(name, "a descriptor has no digest or size")
    algorithm, _, value = digest.partition(":")
    lengths = {"sha256": 64, "sha512": 128}
    if lengths.get(algorithm) != len(value) or not set(value) <= set("0123456789abcdef"):
        raise _corrupt(name, f"{digest[:150]!r} is not a digest")
    return Descriptor(media_type=str(fields.get("mediaType", "")), digest=digest, size=size)


def _strings(fields: dict[str, Any], key: str, name: str) -> tuple[str, ...]:
    value = fields.get(key) or []
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _corrupt(name, f"{key} is not a list of strings")
    return tuple(_plain(item, key, name) for item in value)


def _string(fields: dict[str, Any], key: str, name: str) -> str:
    value = fields.get(key) or ""
    if not isinstance(value, str):
        raise _corrupt(name, f"{key} is not a string")
    return _plain(value, key, name)


def _plain(text: str, key: str, name: str) -> str:
    """The text, which the kernel and every wire can carry."""
    if "\0" in text or text != text.encode(errors="replace").decode():
        raise _corrupt(name, f"{key} has a NUL byte, or is no Unicode")
    return text


def _corrupt(name: str, why: str) -> DriverError:
    return DriverError(
        f"image {name} is damaged",
        details=why,
        resolution="push it again, or pull it from another registry",
        code=Code.CORRUPT,
    )
