"""Docker's config.json: which credentials, or which helper, it names for an image. Reads only.

Podman's auth.json has the same form (containers-auth.json(5)): an entry may be for a namespace of a
registry. No text of the file is ever shown: it holds passwords.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from containerd.registry.auth import is_for
from containerd.registry.credentials import Credentials, namespace_of
from proto.errors import Code, DriverError

_LIMIT_BYTES = 1024 * 1024


class DockerConfig:
    """One config.json, as it is now. Reading it blocks.

    Raises:
        DriverError: code INVALID; the file cannot be read or is not Docker's.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            with Path(path).open("rb") as file:
                data = file.read(_LIMIT_BYTES + 1)
        except OSError as error:
            raise self._wrong(f"cannot be read: {error.strerror}") from error
        if len(data) > _LIMIT_BYTES:
            raise self._wrong("is over 1 MiB")
        try:
            fields = json.loads(data)
        except (ValueError, RecursionError):
            # The parser's own words would quote the file.
            raise self._wrong("is not JSON") from None
        if not isinstance(fields, dict):
            raise self._wrong("is not a JSON object")
        self._fields: dict[str, Any] = fields

    def credentials(self, host: str, repository: str = "") -> Credentials | None:
        """Returns the entry of `auths` for a repository; an entry without a secret is none.

        The longest namespace that the repository is in counts, then the registry's own entry. What
        is for another namespace is never taken.

        Raises:
            DriverError: code INVALID; the entry is malformed.
        """
        entries = self._section("auths")
        fitting = [key for key in entries if is_for(key, host, repository)]
        for key in sorted(fitting, key=lambda key: len(namespace_of(key)), reverse=True):
            found = self._read(entries[key], host)
            if found is not None:
                return found
        return None

    def _read(self, entry: Any, host: str) -> Credentials | None:
        if not entry:
            return None
        if not isinstance(entry, dict):
            raise self._wrong(f"auths of {host} is not an object")
        user, password = self._text(entry, "username", host), self._text(entry, "password", host)
        token, packed = self._text(entry, "identitytoken", host), self._text(entry, "auth", host)
        if packed and not password:
            try:
                # `base64` breaks long lines, and every reader in Go passes over the breaks.
                pair = base64.b64decode("".join(packed.split()), validate=True).decode()
            except (binascii.Error, ValueError):
                raise self._wrong(f"auth of {host} is not base64 of user:password") from None
            user, _, password = pair.strip("\0").partition(":")
        if not token and not (user and password):
            return None
        return Credentials(
            username=user, password=password, server_address=host, identity_token=token
        )

    def helper(self, host: str) -> str:
        """The helper that `credHelpers` or `credsStore` names for a registry, or nothing."""
        helpers = self._section("credHelpers")
        # Helpers are for registries only: a namespace in a key is no registry.
        own = next((helpers[key] for key in helpers if is_for(key, host, "")), None)
        name = own or self._fields.get("credsStore") or ""
        if not isinstance(name, str):
            raise self._wrong(f"the credential helper of {host} is not a string")
        return name

    def _section(self, name: str) -> Mapping[str, Any]:
        entries = self._fields.get(name) or {}
        if not isinstance(entries, Mapping):
            raise self._wrong(f"{name} is not an object")
        return entries

    def _text(self, entry: Mapping[str, Any], key: str, host: str) -> str:
        value = entry.get(key) or ""
        if not isinstance(value, str):
            raise self._wrong(f"{key} of {host} is not a string")
        return value

    def _wrong(self, why: str) -> DriverError:
        return DriverError(
            f"the Docker config file {self._path} {why}",
            resolution="correct it, or auth.config in the plugin block",
            code=Code.INVALID,
        )
