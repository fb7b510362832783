"""Reads containerd's registry hosts directory (certs.d): the endpoints of each registry.

`<directory>/<host[:port]>/hosts.toml`, else `<directory>/_default/hosts.toml`, names mirrors, plain
HTTP, certificates and headers. A directory without hosts.toml may hold Docker's files: `*.crt` (CA)
and `*.cert` with `*.key` (client). The operator writes the files; a job only chooses the registry.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from containerd.reference import DEFAULT_REGISTRY
from containerd.registry.addresses import web_address
from containerd.registry.credentials import HUB_NAMES
from proto.errors import Code, DriverError
from proto.values import dataclass

HUB_HOST = "registry-1.docker.io"
_FILE = "hosts.toml"
_LIMIT_BYTES = 1024 * 1024
_CAPABILITIES = ("pull", "resolve", "push", "referrers")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HOST_TEXT = re.compile(r"[A-Za-z0-9.\[\]:_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server to read from: a registry or a mirror.

    scheme: empty means https; on this machine itself, http if the server does not answer to TLS.
    path: the URL's path before the repository's name.
    client: pairs of files, certificate and key; an empty key means that the file has both.
    namespace: the registry's name for a mirror, because a mirror may serve several registries.
    """

    host: str
    scheme: str = ""
    path: str = "/v2"
    resolve: bool = True
    pull: bool = True
    skip_verify: bool = False
    ca: tuple[str, ...] = ()
    client: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    namespace: str = ""

    @property
    def address(self) -> str:
        """The host, and the path below which it has the registry's repositories, if any."""
        return f"{self.host}{self.path.removeprefix('/v2')}"


def endpoint_of(registry: str) -> Endpoint:
    """Returns the registry itself as an endpoint."""
    return Endpoint(host=_served_at(registry))


def load(directory: str, registry: str) -> tuple[Endpoint, ...]:
    """Returns the endpoints for a registry's images in order, the registry itself last.

    Args:
        directory: the driver's `registry_config_path`; empty for none.
        registry: the registry's name in image references.

    Raises:
        DriverError: code INVALID; the message names the file and each wrong key.
    """
    for name in _names(registry) if directory else ():
        of_registry = Path(directory) / name
        try:
            if not of_registry.is_dir():
                continue
            text = _read(of_registry / _FILE)
            if text is None:
                return (_with_docker_files(of_registry, registry),)
        except OSError as error:
            raise DriverError(
                f"the registry hosts directory {of_registry} cannot be read",
                details=error.strerror or "",
                code=Code.INVALID,
            ) from error
        return parse(text, of_registry / _FILE, registry)
    return (endpoint_of(registry),)


def parse(text: str, file: Path, registry: str) -> tuple[Endpoint, ...]:
    """Parses a hosts.toml. Relative names of certificate files count from the file's directory.

    Raises:
        DriverError: see `load`.
    """
    problems: list[str] = []
    try:
        fields = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        fields, problems = {}, [f"not TOML: {error}"]
    reader = _HostsReader(file.parent, registry, problems)
    hosts = fields.get("host", {})
    if not isinstance(hosts, dict):
        problems.append('host: is not a table, write [host."https://mirror.example"]')
        hosts = {}
    endpoints = [
        reader.endpoint(address, of_host, f'host."{address[:100]}"')
        for address, of_host in hosts.items()
    ]
    server = fields.get("server") or _served_at(registry)
    endpoints.append(reader.endpoint(server, fields, "server"))
    if problems:
        raise DriverError(
            f"the registry hosts file {file} is wrong: {'; '.join(problems[:8])}",
            resolution="correct the file; the next pull reads the file again",
            code=Code.INVALID,
        )
    kept: dict[tuple[str, str, str], Endpoint] = {}
    for endpoint in endpoints:
        if endpoint is not None:
            kept.setdefault((endpoint.scheme, endpoint.host, endpoint.path), endpoint)
    return tuple(kept.values())


class _HostsReader:
    """A reader of a file's endpoints; each mistake becomes a sentence in `problems`."""

    def __init__(self, directory: Path, registry: str, problems: list[str]) -> None:
        self._directory = directory
        self._registry = registry
        self._problems = problems

    def endpoint(self, address: object, fields: object, where: str) -> Endpoint | None:
        """Reads a host or the server; the server's keys stand at the top of the file."""
        top = where == "server"
        if not isinstance(fields, dict):
            self._problems.append(f"{where}: is not a table")
            return None
        prefix = "" if top else f"{where}."
        scheme, host, path = self._address(address, where)
        capabilities = self._capabilities(fields.get("capabilities"), f"{prefix}capabilities")
        override = self._boolean(fields.get("override_path"), f"{prefix}override_path")
        served = _served_at(self._registry)
        return Endpoint(
            host=host,
            scheme=scheme,
            path=path if override else _below_v2(path),
            resolve="resolve" in capabilities,
            pull="pull" in capabilities,
            skip_verify=self._boolean(fields.get("skip_verify"), f"{prefix}skip_verify"),
            ca=tuple(self._files(fields.get("ca"), f"{prefix}ca")),
            client=tuple(self._pairs(fields.get("client"), f"{prefix}client")),
            headers=tuple(self._headers(fields.get("header"), f"{prefix}header")),
            namespace="" if host == served else self._registry,
        )

    def _address(self, value: object, where: str) -> tuple[str, str, str]:
        """Splits a URL into (scheme, host, path); a bare host has an empty scheme."""
        text = value if isinstance(value, str) else ""
        bare = _HOST_TEXT.fullmatch(text) is not None
        parts = web_address(f"https://{text}" if bare else text)
        if parts is not None and not parts.query and not parts.fragment:
            scheme = "" if bare else parts.scheme
            return scheme, _served_at(parts.netloc), parts.path.rstrip("/")
        self._problems.append(
            f"{where}: {_shown(value)} is no URL like https://mirror.example:5000"
        )
        return "", "", ""

    def _capabilities(self, value: object, where: str) -> tuple[str, ...]:
        if value is None:
            return _CAPABILITIES
        items = value if isinstance(value, list) else [None]
        for item in items:
            if item not in _CAPABILITIES:
                shown = _shown(value if item is None else item)
                self._problems.append(f"{where}: {shown} is not a list of pull, resolve and push")
        return tuple(str(item) for item in items)

    def _boolean(self, value: object, where: str) -> bool:
        if value is not None and not isinstance(value, bool):
            self._problems.append(f"{where}: {_shown(value)} is not true or false")
        return value is True

    def _files(self, value: object, where: str) -> list[str]:
        items = [value] if isinstance(value, str) else value
        if items is None:
            return []
        if not isinstance(items, list) or not all(isinstance(item, str) and item for item in items):
            self._problems.append(f"{where}: {_shown(value)} is not a file or a list of files")
            return []
        return [self._file(item, where) for item in items]

    def _file(self, name: str, where: str) -> str:
        path = self._directory / name
        if not path.is_file():
            self._problems.append(f"{where}: file {path} does not exist")
        return str(path)

    def _pairs(self, value: object, where: str) -> list[tuple[str, str]]:
        if value is None:
            return []
        pairs: list[tuple[str, str]] = []
        items: list[Any] = value if isinstance(value, list) else [value]
        for item in items:
            pair = [item] if isinstance(item, str) else item
            if not _is_pair(pair):
                self._problems.append(
                    f'{where}: {_shown(item)} is not a file or a pair like ["client.cert",'
                    ' "client.key"]'
                )
                continue
            names = [self._file(name, where) if name else "" for name in pair]
            pairs.append((names[0], names[1] if len(names) > 1 else ""))
        return pairs

    def _headers(self, value: object, where: str) -> list[tuple[str, str]]:
        if value is None:
            return []
        if not isinstance(value, dict):
            self._problems.append(f"{where}: is not a table")
            return []
        headers: list[tuple[str, str]] = []
        for name, text in value.items():
            values = [text] if isinstance(text, str) else text
            # The message does not show the value: a header may be a password.
            if not _HEADER_NAME.fullmatch(name) or not _header_values(values):
                self._problems.append(f"{where}.{name[:64]}: is not a header with printable text")
                continue
            headers.append((name, ", ".join(values)))
        return headers


def _is_pair(pair: Any) -> bool:
    """Returns True for one or two file names; the second may be empty."""
    if not isinstance(pair, list) or len(pair) not in {1, 2}:
        return False
    return all(isinstance(name, str) for name in pair) and bool(pair[0])


def _header_values(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, str) and value.isprintable() and value.isascii() for value in values
    )


def _names(registry: str) -> tuple[str, ...]:
    """Returns the names of directories by containerd's rules; the first existing one counts."""
    host, colon, port = registry.rpartition(":")
    escaped = (f"{host}_{port}_",) if colon and port.isdecimal() else ()
    return (*escaped, registry, "_default")


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT_BYTES + 1)
    except FileNotFoundError:
        return None
    if len(data) > _LIMIT_BYTES:
        raise DriverError(f"the registry hosts file {path} is over 1 MiB", code=Code.INVALID)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise DriverError(
            f"the registry hosts file {path} is not UTF-8", code=Code.INVALID
        ) from None


def _with_docker_files(directory: Path, registry: str) -> Endpoint:
    """Reads Docker's layout: `*.crt` are CAs, `NAME.cert` belongs to `NAME.key`."""
    pairs = [
        (str(path), str(path.with_suffix(".key")))
        for path in sorted(directory.glob("*.cert"))
        if path.with_suffix(".key").is_file()
    ]
    ca = tuple(str(path) for path in sorted(directory.glob("*.crt")))
    return Endpoint(host=_served_at(registry), ca=ca, client=tuple(pairs))


def _served_at(registry: str) -> str:
    """Returns a registry's host; Docker Hub's host differs from its name."""
    return HUB_HOST if registry == DEFAULT_REGISTRY or registry in HUB_NAMES else registry


def _below_v2(path: str) -> str:
    return path if path.endswith("/v2") else f"{path}/v2"


def _shown(value: object) -> str:
    return repr(value)[:80]
