"""Builds the errors about registries: with the registry's message, never a query or a password."""

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

CHECK_REGISTRY = "check the registry and the network"
# The beginning of urllib3's texts: the connection as an object, and the error's number.
_OBJECT = re.compile(r"^(<\S+ object at 0x\w+>|HTTPS?Connection\([^)]*\)): |\[Errno -?\d+\] ")
# Signed URLs tolerate clocks that differ by a few minutes.
_CLOCK_S = 60.0


def reason(error: Exception) -> str:
    """Returns the system's text for a failed connection."""
    cause = getattr(error, "original_error", None) or getattr(error, "reason", None) or error
    if isinstance(cause, urllib3.exceptions.ProtocolError):
        # The last argument is the cause, or repeats the first argument.
        last = cause.args[-1]
        cause = last if isinstance(last, OSError) else cause.args[0]
    return printable(_OBJECT.sub("", str(cause)).encode(errors="replace"))


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and the chain of its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def broke(error: Exception) -> bool:
    """Returns True if an open connection was cut, or a name server asks to try again."""
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
    """Returns True if a connection was refused, timed out or found no route."""
    numbers = {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT}
    # urllib3's NewConnectionError is a subclass of ConnectTimeoutError, whatever the cause.
    late = isinstance(error, urllib3.exceptions.ConnectTimeoutError) and not isinstance(
        error, urllib3.exceptions.NewConnectionError
    )
    return late or any(
        isinstance(cause, OSError) and cause.errno in numbers for cause in causes(error)
    )


def refused(
    server: str, status: int, headers: Mapping[str, str], body: bytes, what: str
) -> DriverError:
    """Returns the error for a status other than a registry's own 401, 403 and 404.

    Args:
        server: the server's kind and name, as `registry r.example`.
        status: the HTTP status.
        headers: the answer's headers; Retry-After counts.
        body: the beginning of the answer's body.
        what: the requested object, as `blob sha256:…`.
    """
    advice = "too many requests: try later" if status == 429 else ""  # noqa: PLR2004
    brief = f"{server} answered {status} for {what}"
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
    return _access_denied(
        ": ".join(filter(None, (f"{image} at {registry}, status {status}", message(body)))),
        "check the image's name and tag, and the auth block",
        code=Code.NOT_FOUND if status == 404 else Code.DENIED,  # noqa: PLR2004
    )


def token_denied(registry: str, server: str, status: int, body: bytes) -> DriverError:
    """Returns the error for 401 and 403 of a registry's token server."""
    answer = f"token server {server} of {registry} answered {status}"
    return _access_denied(
        ": ".join(filter(None, (answer, message(body)))),
        "check the auth block and the image's name",
    )


def incomplete(image: str, registry: str, what: str, body: bytes) -> DriverError:
    """Returns the error for an image with a blob that the registry has lost."""
    return DriverError(
        f"registry {registry} has only parts of the image {image}",
        details=": ".join(filter(None, (f"no {what}", message(body)))),
        resolution="push the image again",
        code=Code.NOT_FOUND,
    )


def denied_elsewhere(image: str, registry: str, host: str) -> DriverError:
    """Returns the error for a redirect to another registry that asks for credentials."""
    return _access_denied(
        f"{image}: {registry} redirects to {host}, and {host} asks for credentials",
        f"credentials for {registry} go to no other host: pull from {host} itself",
    )


def _access_denied(details: str, resolution: str, *, code: Code = Code.DENIED) -> DriverError:
    return DriverError(
        "pull access denied, repository does not exist or may require authorization",
        details=details,
        resolution=resolution,
        code=code,
    )


def storage_refused(
    registry: str, url: str, status: int, headers: Mapping[str, str], body: bytes
) -> DriverError:
    """Returns the error for a refusal by the storage that the registry redirected to."""
    host = urlsplit(url).netloc
    lead = clock_lead(headers)
    advice = "check the registry's storage: the registry itself allowed the pull"
    if lead is not None and abs(lead) > _CLOCK_S:
        side = "ahead of" if lead > 0 else "behind"
        advice = f"set this machine's clock: the clock is {abs(lead):.0f} s {side} the storage's"
    return DriverError(
        f"the storage {host} of registry {registry} answered {status}",
        details=": ".join(filter(None, (shown(url), message(body)))),
        resolution=advice,
        recoverable=True,
        code=Code.UNAVAILABLE,
    )


def web_page(registry: str, url: str) -> DriverError:
    """Returns the error for a web page instead of a manifest."""
    return DriverError(
        f"registry {registry} answered with a web page instead of a manifest",
        details=shown(url),
        resolution="check the address: a login page, a maintenance page or a proxy answers",
        recoverable=True,
        code=Code.UNAVAILABLE,
    )


def late(registry: str) -> DriverError:
    """Returns the error for the end of the pull's time."""
    return DriverError(
        f"the pull from {registry} did not end in time",
        resolution=f"raise image_pull_timeout, or {CHECK_REGISTRY}",
        recoverable=True,
        code=Code.TIMEOUT,
    )


def silent(registry: str, url: str, silence_s: float, proxy: Proxy | None) -> DriverError:
    """Returns the error for a registry that sends no data."""
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
        url: the requested URL.
        error: urllib3's error.
        proxy: the proxy of the request, or None.
        comes_back: True if the registry has answered in this pull before: the address is right, so
            a registry that is unreachable now may come back.
    """
    text = reason(error)
    through = f" through proxy {proxy.url}" if proxy else ""
    final = _certificate_advice(text) or _proxy_advice(text, proxy)
    busy_proxy = "Tunnel connection failed: 5" in text
    transient = not final and (busy_proxy or broke(error) or (comes_back and unreachable(error)))
    return (Transient if transient else DriverError)(
        f"registry {registry} cannot be read{through}",
        details=f"{shown(url)}: {text}",
        resolution=final or _advice(proxy),
        recoverable=not final,
        code=Code.UNAVAILABLE,
    )


def proxy_account(registry: str, url: str, proxy: Proxy) -> DriverError:
    """Returns the error for a proxy that refuses the user or password."""
    return DriverError(
        f"registry {registry} cannot be read through proxy {proxy.url}",
        details=f"{shown(url)}: status 407, the proxy refuses the user or password",
        resolution=_proxy_advice("407", proxy),
        code=Code.UNAVAILABLE,
    )


def _advice(proxy: Proxy | None) -> str:
    if proxy is None:
        return CHECK_REGISTRY
    return (
        f"check the proxy in {proxy.variable} of the agent's environment; the driver asks hosts in"
        " NO_PROXY directly"
    )


def _certificate_advice(text: str) -> str:
    if "doesn't match" in text:
        return "the certificate is for another host: correct the name or the certificate"
    if "has expired" in text or "not yet valid" in text:
        now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        return f"renew the certificate, or set this machine's clock, now at {now}"
    if "CERTIFICATE" in text.upper():
        return "this machine does not trust the certificate: install the registry's CA"
    return ""


def _proxy_advice(text: str, proxy: Proxy | None) -> str:
    """Returns advice for a proxy's permanent refusal; empty for other failures."""
    if proxy is None:
        return ""
    if "407" in text:
        return f"correct the user and password of {proxy.variable} in the agent's environment"
    if "Tunnel connection failed: 4" in text:
        return "allow the registry's host in the proxy, or add the host to NO_PROXY"
    return ""
