"""Which HTTP proxy a URL is asked through, by HTTP_PROXY, HTTPS_PROXY and NO_PROXY.

The variables mean what they mean to programs in Go, and so to containerd, Docker and the Go driver
(golang.org/x/net/http/httpproxy). This machine itself is never asked through a proxy.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from proto.errors import Code, DriverError

_HTTP = ("HTTP_PROXY", "http_proxy")
_HTTPS = ("HTTPS_PROXY", "https_proxy")
_NONE = ("NO_PROXY", "no_proxy")
_PORTS = {"http": 80, "https": 443}
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """One proxy: its URL without credentials, the header with them, the variable that names it."""

    url: str
    variable: str
    authorization: str = field(default="", repr=False)


class Proxies:
    """The proxies of one environment. A wrong value is an error of the URL that it is for.

    Args:
        variables: the environment, or these six of it.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._given = {
            "http": _first(variables, _HTTP),
            "https": _first(variables, _HTTPS),
        }
        self._exceptions = list(_exceptions(_first(variables, _NONE)[1]))

    def of(self, url: str) -> Proxy | None:
        """Returns the proxy for an http or https URL, or None where the way is direct.

        Raises:
            DriverError: code INVALID; the variable names no proxy that can be used.
        """
        parts = urlsplit(url)
        variable, text = self._given.get(parts.scheme, ("", ""))
        if not text or self._direct(parts):
            return None
        return _proxy(variable, text)

    def _direct(self, parts: SplitResult) -> bool:
        host = (parts.hostname or "").rstrip(".")
        address = _address(host)
        if host == "localhost" or (address is not None and address.is_loopback):
            return True
        port = parts.port or _PORTS[parts.scheme]
        return any(one.covers(host, port, address) for one in self._exceptions)

    def told(self) -> Iterator[str]:
        """Yields a sentence for each proxy that is set, without its password.

        Raises:
            DriverError: as `of`.
        """
        for scheme, (variable, text) in self._given.items():
            if text:
                proxy = _proxy(variable, text)
                account = ", with a user of its own" if proxy.authorization else ""
                yield f"{scheme} through {proxy.url}{account}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Exception:
    """One entry of NO_PROXY: everything, a network, an address, or a domain. Port 0 is any."""

    everything: bool = False
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    address: _Address | None = None
    domain: str = ""
    below_only: bool = False
    port: int = 0

    def covers(self, host: str, port: int, address: _Address | None) -> bool:
        """Returns whether a host, which may be an address, is asked directly."""
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
    """Yields what an entry means; an entry without a meaning is passed over, as in Go."""
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
    """Returns the address that a host is; an IPv4 address in the form of IPv6 counts as IPv4."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


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
        raise _unusable(variable, "it is no URL") from None
    odd = not host or not all(c.isprintable() and c not in " \\/" for c in host)
    if odd:
        raise _unusable(variable, "it is no URL")
    if parts.scheme not in _PORTS:
        raise _unusable(variable, f"the driver speaks to no {parts.scheme[:20]} proxy")
    shown = f"[{host}]" if ":" in host else host
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
    url = f"{parts.scheme}://{shown}:{port or _PORTS[parts.scheme]}"
    return Proxy(url=url, variable=variable, authorization=authorization)


def _unusable(variable: str, why: str) -> DriverError:
    """The value is never shown: it may have a password."""
    return DriverError(
        f"the proxy that {variable} names cannot be used",
        details=why,
        resolution=f"set {variable} in the environment of the Nomad agent to"
        " http://HOST:PORT or https://HOST:PORT, with % codes for odd characters of a password",
        code=Code.INVALID,
    )
