"""Certificates that openssl creates for a test: an authority and the certificates under it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_CONFIG = """\
[req]
distinguished_name = name
prompt = no
[name]
CN = {name}
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = CA:FALSE
keyUsage = critical, digitalSignature
subjectAltName = {names}
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files of a certificate and of its key."""

    file: Path
    key: Path


def authority(directory: Path, name: str = "ca") -> Certificate:
    """Creates an authority that signs itself."""
    return _make(directory, name, "ca", None)


def signed(
    directory: Path, name: str, by: Certificate, names: str = "DNS:localhost, IP:127.0.0.1"
) -> Certificate:
    """Creates a certificate for servers and clients of these names."""
    return _make(directory, name, "leaf", by, names)


def _make(
    directory: Path, name: str, kind: str, by: Certificate | None, names: str = "DNS:none"
) -> Certificate:
    made = Certificate(directory / f"{name}.pem", directory / f"{name}.key")
    config = directory / f"{name}.cnf"
    config.write_text(_CONFIG.format(name=f"test {name}", names=names))
    signer = ["-CA", str(by.file), "-CAkey", str(by.key)] if by else []
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-config", str(config), "-extensions", kind),
            *("-keyout", str(made.key), "-out", str(made.file), *signer),
        ],
        check=True,
        capture_output=True,
    )
    return made
