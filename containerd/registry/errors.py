"""What went wrong with a registry, in words: its own message, never a query or a password."""

from __future__ import annotations

import errno
import http.client
import re
import socket
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import urllib3

from containerd.registry.retries import TRANSIENT, Transient, clock_lead, retry_after
from containerd.registry.shown_text import message, printable, shown
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from containerd.registry.proxies import Proxy

LOOK_AT_IT = "look at the registry and the network"
# What urllib3 begins with: the connection as an object, and the number of the error.
_OBJECT = re.compile(r"^(<\S+ object at 0x\w+>|HTTPS?Connection\([^)]*\)): |\[Errno -?\d+\] ")
# Signed URLs bear a clock that is a few minutes off.
_CLOCK_S = 60.0


def reason(error: Exception) -> str:
    """Returns the system's words for a failed connection."""
    cause = getattr(error, "original_error", None) or getattr(error, "reason", None) or error
    if isinstance(cause, urllib3.exceptions.ProtocolError):
        # Its second part is the cause, or says the same as the first.
        last = cause.args[-1]
        cause = last if isinstance(last, OSError) else cause.args[0]
    return printable(_OBJECT.sub("", str(cause)).encode(errors="replace"))


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and what it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def broke(error: Exception) -> bool:
    """Returns whether a connection that stood was cut, or a name server asks to try again."""
    for cause in causes(error):
        if isinstance(cause, urllib3.exceptions.InvalidChunkLength):
            return False
        if isinstance(cause, socket.gaierror):
            return cause.errno == socket.EAI_AGAIN
        if isinstance(cause, ConnectionResetError | BrokenPipeError | ConnectionAbortedError):
            return True
        if isinstance(cause, http.client.IncompleteRead):
            return True
    return False


def unreachable(error: Exception) -> bool:
    """Returns whether a connection was refused or found no way."""
    numbers = {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT}
    # urllib3's NewConnectionError is a kind of its timeout, whatever the cause.
    late = isinstance(error, urllib3.exceptions.ConnectTimeoutError) and not isinstance(
        error, urllib3.exceptions.NewConnectionError
    )
    return late or any(
        isinstance(cause, OSError) and cause.errno in numbers for cause in causes(error)
    )


def refused(
    who: str, status: int, headers: Mapping[str, str], body: bytes, what: str
) -> DriverError:
    """Returns the error for a status that is none of 401, 403 and 404 of a registry."""
    advice = "too many requests: try later" if status == 429 else ""  # noqa: PLR2004
    brief = f"{who} answered {status} for {what}"
    if status in TRANSIENT:
        error = Transient(
            brief,
            details=message(body),
            resolution=advice,
            recoverable=True,
            code=Code.UNAVAILABLE,
        )
        error.retry_after_s = retry_after(headers)
        return error
    return DriverError(
        brief,
        details=message(body),
        resolution=advice,
        recoverable=status >= 500,  # noqa: PLR2004
        code=Code.UNAVAILABLE,
    )


def denied(image: str, registry: str, status: int, body: bytes) -> DriverError:
    """Returns the error for 401, 403 and 404 of the registry itself."""
    said = message(body)
    return DriverError(
        "pull access denied, repository does not exist or may require authorization",
        details=f"{image} at {registry}, status {status}{f': {said}' if said else ''}",
        resolution="check the image's name and tag, and the auth block",
        code=Code.NOT_FOUND if status == 404 else Code.DENIED,  # noqa: PLR2004
    )


def incomplete(image: str, registry: str, what: str, body: bytes) -> DriverError:
    """Returns the error for a part of an image that its registry has lost."""
    return DriverError(
        f"registry {registry} has the image {image}, but not all of it",
        details=": ".join(filter(None, (f"no {what}", message(body)))),
        resolution="push the image again",
        code=Code.NOT_FOUND,
    )


def denied_elsewhere(image: str, registry: str, host: str) -> DriverError:
    """Returns the error for another registry that a registry redirects to."""
    return DriverError(
        "pull access denied, repository does not exist or may require authorization",
        details=f"{image} at {registry}, which redirects to {host}, and {host} wants credentials",
        resolution=f"credentials for {registry} go to no other host: pull from {host} itself",
        code=Code.DENIED,
    )


def storage_refused(
    registry: str, url: str, status: int, headers: Mapping[str, str], body: bytes
) -> DriverError:
    """Returns the error of the place that the registry sent the pull to."""
    host = urlsplit(url).netloc
    lead = clock_lead(headers)
    advice = "look at the registry's storage: the registry itself let the pull in"
    if lead is not None and abs(lead) > _CLOCK_S:
        side = "ahead of" if lead > 0 else "behind"
        advice = f"set this machine's clock: it is {abs(lead):.0f} s {side} the storage's"
    return DriverError(
        f"the storage {host} of registry {registry} answered {status}",
        details=": ".join(filter(None, (shown(url), message(body)))),
        resolution=advice,
        recoverable=True,
        code=Code.UNAVAILABLE,
    )


def web_page(registry: str, url: str) -> DriverError:
    """Returns the error for a page that something else than a registry answers with."""
    return DriverError(
        f"registry {registry} answered with a web page, and not with a manifest",
        details=shown(url),
        resolution="look at the address: a login page, a maintenance page or a proxy answers there",
        recoverable=True,
        code=Code.UNAVAILABLE,
    )


def late(registry: str) -> DriverError:
    """Returns the error for the end of the pull's time."""
    return DriverError(
        f"the pull from {registry} did not end in time",
        resolution="raise image_pull_timeout, or look at the registry and the network",
        recoverable=True,
        code=Code.TIMEOUT,
    )


def silent(registry: str, url: str, silence_s: float, proxy: Proxy | None) -> DriverError:
    """Returns the error for a registry from which nothing comes."""
    through = f" through proxy {proxy.url}" if proxy else ""
    return DriverError(
        f"registry {registry} does not answer{through}",
        details=f"{shown(url)}: nothing came for {silence_s:g} s",
        resolution=_advice(proxy),
        recoverable=True,
        code=Code.TIMEOUT,
    )


def away(
    registry: str, url: str, error: Exception, proxy: Proxy | None, *, comes_back: bool
) -> DriverError:
    """Returns the error for a connection that failed or broke.

    Args:
        registry: the registry's name.
        url: what was asked for.
        error: urllib3's.
        proxy: the proxy that was asked.
        comes_back: the registry has answered in this pull, so one that is away now is no mistake.
    """
    why = reason(error)
    through = f" through proxy {proxy.url}" if proxy else ""
    final = _certificate_advice(why) or _proxy_advice(why, proxy)
    busy_proxy = "Tunnel connection failed: 5" in why
    transient = not final and (busy_proxy or broke(error) or (comes_back and unreachable(error)))
    return (Transient if transient else DriverError)(
        f"registry {registry} cannot be read{through}",
        details=f"{shown(url)}: {why}",
        resolution=final or _advice(proxy),
        recoverable=not final,
        code=Code.UNAVAILABLE,
    )


def proxy_account(registry: str, url: str, proxy: Proxy) -> DriverError:
    """Returns the error for a proxy that wants another user or password."""
    return DriverError(
        f"registry {registry} cannot be read through proxy {proxy.url}",
        details=f"{shown(url)}: status 407, the proxy wants another user or password",
        resolution=_proxy_advice("407", proxy),
        code=Code.UNAVAILABLE,
    )


def _advice(proxy: Proxy | None) -> str:
    if proxy is None:
        return LOOK_AT_IT
    return (
        f"look at the proxy, which {proxy.variable} in the agent's environment names; hosts in"
        " NO_PROXY are asked directly"
    )


def _certificate_advice(why: str) -> str:
    if "doesn't match" in why:
        return "its certificate is for another host: correct the name or the certificate"
    if "has expired" in why or "not yet valid" in why:
        today = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        return f"renew it, or set this machine's clock: it says {today}"
    if "CERTIFICATE" in why.upper():
        return "its certificate is not trusted here: install its CA"
    return ""


def _proxy_advice(why: str, proxy: Proxy | None) -> str:
    """Returns what to do about a proxy that refuses for good."""
    if proxy is None:
        return ""
    if "407" in why:
        return f"correct the user and password of {proxy.variable} in the agent's environment"
    if "Tunnel connection failed: 4" in why:
        return "have the proxy allow the registry's host, or name the host in NO_PROXY"
    return ""
