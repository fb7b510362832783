"""Where a registry's images are read from: containerd's registry hosts directory (certs.d).

`<directory>/<host[:port]>/hosts.toml`, else `<directory>/_default/hosts.toml`, names mirrors, plain
HTTP, certificates and headers. A directory without that file may hold Docker's `*.crt` (CA) and
`*.cert` with `*.key` (client). What is written there is the operator's; a job only chooses the
registry.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from containerd.reference import DEFAULT_REGISTRY
from containerd.registry.auth import web_address
from containerd.registry.credentials import HUB_NAMES
from proto.errors import Code, DriverError

HUB_HOST = "registry-1.docker.io"
_FILE = "hosts.toml"
_LIMIT_BYTES = 1024 * 1024
_CAPABILITIES = ("pull", "resolve", "push", "referrers")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HOST_TEXT = re.compile(r"[A-Za-z0-9.\[\]:_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One place to read from. An empty scheme: TLS, or on this machine what is spoken there.

    path is what stands before the repository's name. client is pairs of files, certificate and key;
    the key is empty where one file has both. namespace is told to a mirror, which may serve several
    registries.
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
    def place(self) -> str:
        """The host, and the path below which it has the registry's repositories, if any."""
        return f"{self.host}{self.path.removeprefix('/v2')}"


def endpoint_of(registry: str) -> Endpoint:
    """The registry itself."""
    return Endpoint(host=_served_at(registry))


def load(directory: str, registry: str) -> tuple[Endpoint, ...]:
    """Returns where to ask for a registry's images, in order; the registry itself is the last one.

    Raises:
        DriverError: code INVALID, with the file and every key in it that is not right.
    """
    for name in _names(registry) if directory else ():
        found = Path(directory) / name
        try:
            if not found.is_dir():
                continue
            text = _read(found / _FILE)
            if text is None:
                return (_with_docker_files(found, registry),)
        except OSError as error:
            raise DriverError(
                f"the registry hosts directory {found} cannot be read",
                details=error.strerror or "",
                code=Code.INVALID,
            ) from error
        return parse(text, found / _FILE, registry)
    return (endpoint_of(registry),)


def parse(text: str, file: Path, registry: str) -> tuple[Endpoint, ...]:
    """The endpoints of one hosts.toml; relative certificate files lie beside it.

    Raises:
        DriverError: as `load`.
    """
    problems: list[str] = []
    try:
        fields = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        fields, problems = {}, [f"it is not TOML: {error}"]
    reader = _Reader(file.parent, registry, problems)
    hosts = fields.get("host", {})
    if not isinstance(hosts, dict):
        problems.append('host: is not a table, write [host."https://mirror.example"]')
        hosts = {}
    found = [
        reader.endpoint(address, of_host, f'host."{address[:100]}"')
        for address, of_host in hosts.items()
    ]
    server = fields.get("server") or _served_at(registry)
    found.append(reader.endpoint(server, fields, "server"))
    if problems:
        raise DriverError(
            f"the registry hosts file {file} is not right: {'; '.join(problems[:8])}",
            resolution="correct it; it is read at the next pull",
            code=Code.INVALID,
        )
    kept: dict[tuple[str, str, str], Endpoint] = {}
    for endpoint in found:
        if endpoint is not None:
            kept.setdefault((endpoint.scheme, endpoint.host, endpoint.path), endpoint)
    return tuple(kept.values())


class _Reader:
    """Reads one file's endpoints; what is wrong becomes a sentence in `problems`."""

    def __init__(self, directory: Path, registry: str, problems: list[str]) -> None:
        self._directory = directory
        self._registry = registry
        self._problems = problems

    def endpoint(self, address: object, fields: object, where: str) -> Endpoint | None:
        """One host or the server; keys of the server stand at the top of the file."""
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
        """(scheme, host, path) of a URL, or of a bare host, whose scheme is found out."""
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
        given = value if isinstance(value, list) else [None]
        for item in given:
            if item not in _CAPABILITIES:
                shown = _shown(value if item is None else item)
                self._problems.append(f"{where}: {shown} is not a list of pull, resolve and push")
        return tuple(str(item) for item in given)

    def _boolean(self, value: object, where: str) -> bool:
        if value is not None and not isinstance(value, bool):
            self._problems.append(f"{where}: {_shown(value)} is not true or false")
        return value is True

    def _files(self, value: object, where: str) -> list[str]:
        found = [value] if isinstance(value, str) else value
        if found is None:
            return []
        if not isinstance(found, list) or not all(isinstance(item, str) and item for item in found):
            self._problems.append(f"{where}: {_shown(value)} is not a file or a list of files")
            return []
        return [self._file(item, where) for item in found]

    def _file(self, name: str, where: str) -> str:
        path = self._directory / name
        if not path.is_file():
            self._problems.append(f"{where}: there is no file {path}")
        return str(path)

    def _pairs(self, value: object, where: str) -> list[tuple[str, str]]:
        if value is None:
            return []
        found: list[tuple[str, str]] = []
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
            found.append((names[0], names[1] if len(names) > 1 else ""))
        return found

    def _headers(self, value: object, where: str) -> list[tuple[str, str]]:
        if value is None:
            return []
        if not isinstance(value, dict):
            self._problems.append(f"{where}: is not a table")
            return []
        found: list[tuple[str, str]] = []
        for name, given in value.items():
            values = [given] if isinstance(given, str) else given
            # The value may be a password: it is not shown.
            if not _HEADER_NAME.fullmatch(name) or not _header_values(values):
                self._problems.append(f"{where}.{name[:64]}: is not a header with printable text")
                continue
            found.append((name, ", ".join(values)))
        return found


def _is_pair(pair: Any) -> bool:
    """One or two file names; the second may be empty."""
    if not isinstance(pair, list) or len(pair) not in {1, 2}:
        return False
    return all(isinstance(name, str) for name in pair) and bool(pair[0])


def _header_values(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, str) and value.isprintable() and value.isascii() for value in values
    )


def _names(registry: str) -> tuple[str, ...]:
    """Directories that containerd looks for, the first that exists counts."""
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
    """Docker's layout: `*.crt` are CAs, `NAME.cert` belongs to `NAME.key`."""
    pairs = [
        (str(path), str(path.with_suffix(".key")))
        for path in sorted(directory.glob("*.cert"))
        if path.with_suffix(".key").is_file()
    ]
    ca = tuple(str(path) for path in sorted(directory.glob("*.crt")))
    return Endpoint(host=_served_at(registry), ca=ca, client=tuple(pairs))


def _served_at(registry: str) -> str:
    """Docker Hub's name is not the host that serves it."""
    return HUB_HOST if registry == DEFAULT_REGISTRY or registry in HUB_NAMES else registry


def _below_v2(path: str) -> str:
    return path if path.endswith("/v2") else f"{path}/v2"


def _shown(value: object) -> str:
    return repr(value)[:80]
