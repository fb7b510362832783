"""TLS of one registry endpoint: whom to trust, and which certificate to show."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from containerd.registry.hosts import Endpoint


def context(endpoint: Endpoint) -> ssl.SSLContext:
    """The system's CAs and the endpoint's own; nobody is checked where skip_verify says so.

    Raises:
        DriverError: code INVALID; a certificate or key file cannot be used.
    """
    tls = ssl.create_default_context()
    # urllib3 compares the name itself then; 1.26 cannot connect to an address otherwise.
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
            # Without a password OpenSSL would ask for one at the terminal.
            tls.load_cert_chain(certificate, key or None, password="")
        except (OSError, ssl.SSLError, ValueError) as error:
            what = f"is no client certificate for key {key or certificate}"
            raise _unusable(endpoint, certificate, what, error) from error
    return tls


def of_proxy(host: str) -> ssl.SSLContext:
    """Returns what checks an https:// proxy: the system's CAs and its name, or its address."""
    tls = _OfOne(ssl.PROTOCOL_TLS_CLIENT)
    tls.host = host
    tls.load_default_certs()
    return tls


class _OfOne(ssl.SSLContext):
    """A context for one host: urllib3 1.26 gives no name for a host that is an address."""

    host = ""

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        """See ssl.SSLContext."""
        return super().wrap_socket(*arguments, **{**options, "server_hostname": self.host})


def _unusable(endpoint: Endpoint, file: str, what: str, error: Exception) -> DriverError:
    why = error.strerror if isinstance(error, OSError) else ""
    return DriverError(
        f"{file} of registry host {endpoint.host} {what}",
        details=str(getattr(error, "reason", "") or why or type(error).__name__),
        resolution="correct the registry hosts directory",
        code=Code.INVALID,
    )
