"""Builds TLS contexts for registry endpoints and proxies."""

from __future__ import annotations

import contextlib
import functools
import os
import ssl
from typing import TYPE_CHECKING, Any

from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from containerd.registry.hosts import Endpoint

CA_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Flatcar
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL and its kin, Amazon Linux
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",  # Alpine
)
"""Places of the system's CAs. OpenSSL knows only the place of the distribution that built OpenSSL,
and the archive brings Debian's OpenSSL to all distributions."""


def context(endpoint: Endpoint) -> ssl.SSLContext:
    """Builds a context with the system's CAs, the endpoint's CAs and client certificates.

    With skip_verify the context checks no certificate.

    Raises:
        DriverError: code INVALID; a certificate or key file cannot be used.
    """
    try:
        if not endpoint.client:
            return _kept(endpoint.skip_verify, endpoint.ca, _stamps(endpoint))
        tls = _verifying(endpoint.skip_verify, endpoint.ca)
    except _UnusableCaError as error:
        what = "is no CA in PEM form"
        raise _unusable(endpoint, error.file, what, error.reason) from error
    for certificate, key in endpoint.client:
        try:
            # Without the argument OpenSSL would ask for a password at the terminal.
            tls.load_cert_chain(certificate, key or None, password="")
        except (OSError, ssl.SSLError, ValueError) as error:
            what = f"is no client certificate for key {key or certificate}"
            raise _unusable(endpoint, certificate, what, error) from error
    return tls


class _UnusableCaError(Exception):
    """A CA file cannot be read."""

    def __init__(self, file: str, reason: Exception) -> None:
        super().__init__(file)
        self.file, self.reason = file, reason


def _verifying(skip_verify: bool, ca: tuple[str, ...]) -> ssl.SSLContext:  # noqa: FBT001
    """Builds a context without client certificates."""
    # Reading the system's CAs takes 30 ms.
    create = _unchecked if skip_verify else ssl.create_default_context
    tls = create()
    # With check_hostname False urllib3 compares the name itself. urllib3 1.26 cannot connect to an
    # address otherwise.
    tls.check_hostname = False
    if skip_verify:
        tls.verify_mode = ssl.CERT_NONE
    for file in (*_more_system_cas(skip_verify), *ca):
        try:
            tls.load_verify_locations(file)
        except (OSError, ssl.SSLError) as error:
            raise _UnusableCaError(file, error) from error
    return tls


def system_ca_file(known: ssl.DefaultVerifyPaths, files: tuple[str, ...] = CA_FILES) -> str:
    """Returns the file with the system's CAs, or "" if OpenSSL's directory has the CAs.

    Args:
        known: the existing paths among OpenSSL's own.
        files: files to look for without OpenSSL's own.
    """
    if known.cafile or known.capath:
        return known.cafile or ""
    return next((file for file in files if os.path.exists(file)), "")  # noqa: PTH110 - no object


def _more_system_cas(skip_verify: bool) -> tuple[str, ...]:  # noqa: FBT001
    """Returns the files of the system's CAs that OpenSSL does not find."""
    known = ssl.get_default_verify_paths()
    file = "" if skip_verify else system_ca_file(known)
    return (file,) if file and file != known.cafile else ()


def _unchecked() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


# A context needs 1 MB. A context with a client's private key is never kept.
@functools.lru_cache(maxsize=2)
def _kept(
    skip_verify: bool,  # noqa: FBT001
    ca: tuple[str, ...],
    _: tuple[tuple[int, int, int], ...],
) -> ssl.SSLContext:
    return _verifying(skip_verify, ca)


def _stamps(endpoint: Endpoint) -> tuple[tuple[int, int, int], ...]:
    """Returns inode, size and time of each CA file: a changed file needs a new context."""
    found: list[tuple[int, int, int]] = []
    for file in (system_ca_file(ssl.get_default_verify_paths()), *endpoint.ca):
        with contextlib.suppress(OSError):
            entry = os.stat(file)  # noqa: PTH116 - no object each
            found.append((entry.st_ino, entry.st_size, entry.st_mtime_ns))
    return tuple(found)


def of_proxy(host: str) -> ssl.SSLContext:
    """Builds a context for an https:// proxy: the system's CAs, and the proxy's name or address."""
    tls = _SingleHostContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.host = host
    tls.load_default_certs()
    for file in _more_system_cas(skip_verify=False):
        tls.load_verify_locations(file)
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
