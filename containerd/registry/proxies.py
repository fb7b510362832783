"""Chooses the HTTP proxy for a URL by HTTP_PROXY, HTTPS_PROXY and NO_PROXY.

The variables have the meaning of Go programs (golang.org/x/net/http/httpproxy), and so of
containerd, Docker and the Go driver. No proxy is used for this machine itself.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import field
from urllib.parse import SplitResult, unquote, urlsplit

from proto.errors import Code, DriverError
from proto.values import dataclass

_HTTP = ("HTTP_PROXY", "http_proxy")
_HTTPS = ("HTTPS_PROXY", "https_proxy")
_NONE = ("NO_PROXY", "no_proxy")
_PORTS = {"http": 80, "https": 443}
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A proxy: the URL without credentials, the header with them, the variable's name."""

    url: str
    variable: str
    authorization: str = field(default="", repr=False)


class Proxies:
    """The proxies of an environment. A wrong value fails only the URLs that would use the proxy.

    Args:
        variables: the environment, or the six variables of proxies.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._by_scheme = {
            "http": _first(variables, _HTTP),
            "https": _first(variables, _HTTPS),
        }
        self._exceptions = list(_exceptions(_first(variables, _NONE)[1]))

    def of(self, url: str) -> Proxy | None:
        """Returns the proxy for an http or https URL; None for a direct connection.

        Raises:
            DriverError: code INVALID; the variable's value is no usable proxy.
        """
        parts = urlsplit(url)
        variable, text = self._by_scheme.get(parts.scheme, ("", ""))
        if not text or self._direct(parts):
            return None
        return _proxy(variable, text)

    def _direct(self, parts: SplitResult) -> bool:
        host = (parts.hostname or "").rstrip(".")
        address = _address(host)
        if host == "localhost" or (address is not None and address.is_loopback):
            return True
        port = parts.port or _PORTS[parts.scheme]
        return any(entry.covers(host, port, address) for entry in self._exceptions)

    def sentences(self) -> Iterator[str]:
        """Yields a sentence for each proxy in the environment, without the password.

        Raises:
            DriverError: see `of`.
        """
        for scheme, (variable, text) in self._by_scheme.items():
            if text:
                proxy = _proxy(variable, text)
                account = ", with a user" if proxy.authorization else ""
                yield f"{scheme} through {proxy.url}{account}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Exception:
    """An entry of NO_PROXY: everything, a network, an address, or a domain. Port 0 means any."""

    everything: bool = False
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    address: _Address | None = None
    domain: str = ""
    below_only: bool = False
    port: int = 0

    def covers(self, host: str, port: int, address: _Address | None) -> bool:
        """Returns True if the driver asks a host directly; the host may be an address."""
        if self.everything:
            return True
        if self.network is not None:
            return address is not None and address in self.network
        if self.port not in {0, port}:
            return False
        if self.address is not None:
            return address == self.address
        return host.endswith(f".{self.domain}") or (host == self.domain and not self.below_only)


def _exceptions(text: str) -> Iterator[_Exception]:
    for word in text.split(","):
        entry = word.strip().lower()
        if entry == "*":
            yield _Exception(everything=True)
        elif entry:
            yield from _exception(entry)


def _exception(entry: str) -> Iterator[_Exception]:
    """Parses an entry; yields nothing for a malformed entry, as in Go."""
    if "/" in entry:
        try:
            yield _Exception(network=ipaddress.ip_network(entry, strict=False))
        except ValueError:
            return
        return
    host, port = _host_and_port(entry)
    address = _address(host.strip("[]"))
    if address is not None:
        yield _Exception(address=address, port=port)
        return
    host = host.removeprefix("*").rstrip(".")
    name = host.removeprefix(".")
    if name:
        yield _Exception(domain=_ascii(name), below_only=host.startswith("."), port=port)


def _host_and_port(entry: str) -> tuple[str, int]:
    host, colon, port = entry.rpartition(":")
    bare = host and (":" not in host or host.endswith("]"))
    if colon and bare and port.isascii() and port.isdecimal():
        return host, int(port)
    return entry, 0


def _ascii(name: str) -> str:
    try:
        return name.encode("idna").decode()
    except UnicodeError:
        return name


def _address(host: str) -> _Address | None:
    """Parses an address; None for a name. An IPv4 address in IPv6 form counts as IPv4."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _first(variables: Mapping[str, str], names: tuple[str, str]) -> tuple[str, str]:
    return next(((name, variables[name]) for name in names if variables.get(name)), ("", ""))


def _proxy(variable: str, text: str) -> Proxy:
    """Reads `[scheme://][user:password@]host[:port]`."""
    try:
        parts = urlsplit(text)
        if not parts.netloc and "//" not in text:
            parts = urlsplit(f"http://{text}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise _unusable(variable, "the value is no URL") from None
    if not host or not all(c.isprintable() and c not in " \\/" for c in host):
        raise _unusable(variable, "the value is no URL")
    if parts.scheme not in _PORTS:
        raise _unusable(variable, f"the driver does not support {parts.scheme[:20]} proxies")
    shown = f"[{host}]" if ":" in host else host
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
    url = f"{parts.scheme}://{shown}:{port or _PORTS[parts.scheme]}"
    return Proxy(url=url, variable=variable, authorization=authorization)


def _unusable(variable: str, fault: str) -> DriverError:
    """Builds the error for a wrong value; never shows the value, because of the password."""
    return DriverError(
        f"the proxy in {variable} cannot be used",
        details=fault,
        resolution=f"set {variable} in the environment of the Nomad agent to http://HOST:PORT or"
        " https://HOST:PORT, with % codes for special characters of a password",
        code=Code.INVALID,
    )
