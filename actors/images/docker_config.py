"""Reader of Docker's config.json: credentials or the credential helper for an image.

Podman's auth.json has the same form (containers-auth.json(5)): an entry may be for a namespace of a
registry. No error quotes the file, because the file holds passwords.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from containerd.registry.credentials import Credentials, is_for, namespace_of
from proto.errors import Code, DriverError

_LIMIT_BYTES = 1024 * 1024


class DockerConfig:
    """Content of a config.json. The constructor reads the file, and blocks.

    Args:
        path: path of the file.

    Raises:
        DriverError: code INVALID; the file cannot be read or is no config.json.
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
            # The parser's error would quote the file.
            raise self._wrong("is not JSON") from None
        if not isinstance(fields, dict):
            raise self._wrong("is not a JSON object")
        self._fields: dict[str, Any] = fields

    def credentials(self, host: str, repository: str = "") -> Credentials | None:
        """Returns the entry of `auths` for a repository; None without an entry with a secret.

        The entry with the longest namespace of the repository counts, then the registry's entry.
        An entry for another namespace is never used.

        Args:
            host: host of the registry.
            repository: repository of the image; may be empty.

        Raises:
            DriverError: code INVALID; the entry is malformed.
        """
        entries = self._section("auths")
        fitting = [key for key in entries if is_for(key, host, repository)]
        for key in sorted(fitting, key=lambda key: len(namespace_of(key)), reverse=True):
            credentials = self._credentials(entries[key], host)
            if credentials is not None:
                return credentials
        return None

    def _credentials(self, entry: Any, host: str) -> Credentials | None:
        if not entry:
            return None
        if not isinstance(entry, dict):
            raise self._wrong(f"auths of {host} is not an object")
        user, password = self._text(entry, "username", host), self._text(entry, "password", host)
        token, packed = self._text(entry, "identitytoken", host), self._text(entry, "auth", host)
        if packed and not password:
            try:
                # The program `base64` breaks long lines, and readers in Go ignore the breaks.
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
        """Returns a registry's helper in `credHelpers` or `credsStore`; empty without a helper."""
        helpers = self._section("credHelpers")
        # A helper is for a whole registry: a key with a namespace is ignored.
        helper = next((helpers[key] for key in helpers if is_for(key, host, "")), None)
        name = helper or self._fields.get("credsStore") or ""
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

    def _wrong(self, reason: str) -> DriverError:
        return DriverError(
            f"the Docker config file {self._path} {reason}",
            resolution="correct the file, or auth.config in the plugin block",
            code=Code.INVALID,
        )
