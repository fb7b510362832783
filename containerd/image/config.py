"""An image's config: defaults of the image's program, layers and platform."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from containerd.image import health_check, platforms
from containerd.image.health_check import HealthCheck
from containerd.image.manifests import damaged, json_object
from containerd.image.platforms import Platform
from proto.values import dataclass

CONFIG_LIMIT_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """Defaults for the image's program. diff_ids are the uncompressed layers, lowest first.

    shell: program and options before a line of a health check; empty: `/bin/sh -c`.
    """

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    stop_signal: str = ""
    health_check: HealthCheck | None = None
    shell: tuple[str, ...] = ()
    diff_ids: tuple[str, ...] = ()
    platform: Platform = field(default_factory=Platform)


def parse_config(body: bytes, name: str) -> ImageConfig:
    """Reads an image's config.

    Args:
        body: the JSON text.
        name: the image, for errors.

    Raises:
        DriverError: CORRUPT.
    """
    fields = json_object(body, name)
    run = fields.get("config") or {}
    rootfs = fields.get("rootfs")
    if not isinstance(run, dict) or not isinstance(rootfs, dict):
        raise damaged(name, "the config has no rootfs")
    if not isinstance(run.get("Labels") or {}, dict):
        raise damaged(name, "Labels is not a map")
    return ImageConfig(
        entrypoint=_strings(run, "Entrypoint", name),
        cmd=_strings(run, "Cmd", name),
        env=_strings(run, "Env", name),
        user=_string(run, "User", name),
        working_dir=_string(run, "WorkingDir", name),
        stop_signal=_string(run, "StopSignal", name),
        health_check=health_check.parse(run.get("Healthcheck")),
        shell=_strings(run, "Shell", name),
        diff_ids=_strings(rootfs, "diff_ids", name),
        platform=platforms.of(fields),
    )


def _strings(fields: dict[str, Any], key: str, name: str) -> tuple[str, ...]:
    value = fields.get(key) or []
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise damaged(name, f"{key} is not a list of strings")
    return tuple(_checked(item, key, name) for item in value)


def _string(fields: dict[str, Any], key: str, name: str) -> str:
    value = fields.get(key) or ""
    if not isinstance(value, str):
        raise damaged(name, f"{key} is not a string")
    return _checked(value, key, name)


def _checked(text: str, key: str, name: str) -> str:
    """Returns a text that the kernel and every protocol can carry.

    Raises:
        DriverError: CORRUPT.
    """
    if "\0" in text or text != text.encode(errors="replace").decode():
        raise damaged(name, f"{key} has a NUL byte, or is not Unicode")
    return text
