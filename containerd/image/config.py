"""An image's config: what it says about running it, and for which platform it is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from containerd.image import platforms
from containerd.image.manifests import damaged, json_object
from containerd.image.platforms import Platform

CONFIG_LIMIT_BYTES = 8 * 1024 * 1024


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
    platform: Platform = field(default_factory=Platform)


def parse_config(body: bytes, name: str) -> ImageConfig:
    """Reads an image's config.

    Raises:
        DriverError: CORRUPT.
    """
    fields = json_object(body, name)
    run = fields.get("config") or {}
    rootfs = fields.get("rootfs")
    if not isinstance(run, dict) or not isinstance(rootfs, dict):
        raise damaged(name, "its config has no rootfs")
    labels = run.get("Labels") or {}
    if not isinstance(labels, dict):
        raise damaged(name, "Labels is not a map")
    return ImageConfig(
        entrypoint=_strings(run, "Entrypoint", name),
        cmd=_strings(run, "Cmd", name),
        env=_strings(run, "Env", name),
        user=_string(run, "User", name),
        working_dir=_string(run, "WorkingDir", name),
        stop_signal=_string(run, "StopSignal", name),
        labels={str(key): str(value) for key, value in labels.items()},
        diff_ids=_strings(rootfs, "diff_ids", name),
        platform=platforms.of(fields),
    )


def _strings(fields: dict[str, Any], key: str, name: str) -> tuple[str, ...]:
    value = fields.get(key) or []
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise damaged(name, f"{key} is not a list of strings")
    return tuple(_plain(item, key, name) for item in value)


def _string(fields: dict[str, Any], key: str, name: str) -> str:
    value = fields.get(key) or ""
    if not isinstance(value, str):
        raise damaged(name, f"{key} is not a string")
    return _plain(value, key, name)


def _plain(text: str, key: str, name: str) -> str:
    """Returns the text, which the kernel and every wire can carry."""
    if "\0" in text or text != text.encode(errors="replace").decode():
        raise damaged(name, f"{key} has a NUL byte, or is no Unicode")
    return text
