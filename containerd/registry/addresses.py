"""Addresses of registries and token servers: this machine, web addresses, equal servers."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit


def is_loopback(host: str) -> bool:
    """Returns True for a name or address of this machine itself, with or without a port.

    Does not resolve names: only `localhost` and loopback addresses count.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost":
            return True
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def web_address(url: str) -> SplitResult | None:
    """Splits an http or https URL; None if the URL is malformed or parsers disagree about it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    # Some parsers drop control characters and backslashes, other parsers split at them.
    ambiguous = (
        "@" in parts.netloc or "\\" in parts.netloc or any(c < " " or c == "\x7f" for c in url)
    )
    if parts.scheme not in {"http", "https"} or not parts.hostname or ambiguous:
        return None
    return parts


def same_server(url: str, other: str) -> bool:
    """Returns True if two URLs have the same host and port; a scheme's default port counts as 0."""
    return _server(url) == _server(other)


def _server(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        port = parts.port or 0
    except ValueError:
        return url, 0
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return (parts.hostname or "").rstrip("."), 0 if port == default else port
