"""Builds TLS contexts for registry endpoints and proxies."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from containerd.registry.hosts import Endpoint


def context(endpoint: Endpoint) -> ssl.SSLContext:
    """Builds a context with the system's CAs, the endpoint's CAs and client certificates.

    With skip_verify the context checks no certificate.

    Raises:
        DriverError: code INVALID; a certificate or key file cannot be used.
    """
    if endpoint.skip_verify:
        # Reading the system's CAs takes milliseconds.
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    else:
        tls = ssl.create_default_context()
    # With check_hostname False urllib3 compares the name itself. urllib3 1.26 cannot connect to an
    # address otherwise.
    tls.check_hostname = False
    if endpoint.skip_verify:
        tls.verify_mode = ssl.CERT_NONE
    for file in endpoint.ca:
        try:
            tls.load_verify_locations(file)
        except (OSError, ssl.SSLError) as error:
            raise _unusable(endpoint, file, "is no CA in PEM form", error) from error
    for certificate, key in endpoint.client:
        try:
            # Without the argument OpenSSL would ask for a password at the terminal.
            tls.load_cert_chain(certificate, key or None, password="")
        except (OSError, ssl.SSLError, ValueError) as error:
            what = f"is no client certificate for key {key or certificate}"
            raise _unusable(endpoint, certificate, what, error) from error
    return tls


def of_proxy(host: str) -> ssl.SSLContext:
    """Builds a context for an https:// proxy: the system's CAs, and the proxy's name or address."""
    tls = _SingleHostContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.host = host
    tls.load_default_certs()
    return tls


class _SingleHostContext(ssl.SSLContext):
    """A context for a single host: urllib3 1.26 passes no name if the host is an address."""

    host = ""

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        """See `ssl.SSLContext.wrap_socket`."""
        return super().wrap_socket(*arguments, **{**options, "server_hostname": self.host})


def _unusable(endpoint: Endpoint, file: str, what: str, error: Exception) -> DriverError:
    text = error.strerror if isinstance(error, OSError) else ""
    return DriverError(
        f"{file} of registry host {endpoint.host} {what}",
        details=str(getattr(error, "reason", "") or text or type(error).__name__),
        resolution="correct the registry hosts directory",
        code=Code.INVALID,
    )
