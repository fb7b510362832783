"""TLS contexts: kept while the CA files stay the same, and never with a private key."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

from containerd.registry.hosts import Endpoint
from containerd.registry.tls import context, system_ca_file
from tests.support.registries import certificates


def test_a_context_is_kept_until_a_ca_file_changes(tmp_path: Path) -> None:
    first = certificates.authority(tmp_path, "first")
    endpoint = Endpoint(host="r.example", ca=(str(first.file),))
    kept = context(endpoint)
    assert context(endpoint) is kept
    before = kept.cert_store_stats()["x509_ca"]
    second = certificates.authority(tmp_path, "second")
    first.file.write_bytes(first.file.read_bytes() + second.file.read_bytes())
    assert context(endpoint).cert_store_stats()["x509_ca"] == before + 1
    assert kept.cert_store_stats()["x509_ca"] == before


def test_endpoints_with_other_settings_have_other_contexts(tmp_path: Path) -> None:
    ca = certificates.authority(tmp_path)
    endpoint = Endpoint(host="r.example")
    kept = context(endpoint)
    assert context(replace(endpoint, ca=(str(ca.file),))) is not kept
    assert context(replace(endpoint, skip_verify=True)).cert_store_stats()["x509_ca"] == 0
    assert context(endpoint) is not context(replace(endpoint, skip_verify=True))


def test_a_context_with_a_private_key_is_not_kept(tmp_path: Path) -> None:
    ca = certificates.authority(tmp_path)
    client = certificates.signed(tmp_path, "client", ca)
    endpoint = Endpoint(host="r.example", client=((str(client.file), str(client.key)),))
    assert context(endpoint) is not context(endpoint)


def _known(file: Path | None, directory: Path | None = None) -> ssl.DefaultVerifyPaths:
    paths: Any = [*(path and str(path) for path in (file, directory)), "", "", "", ""]
    return ssl.DefaultVerifyPaths(*paths)


def test_the_systems_cas_are_found_where_other_distributions_have_their_cas(tmp_path: Path) -> None:
    here, other = tmp_path / "here", tmp_path / "other"
    here.touch()
    files = (str(tmp_path / "nowhere"), str(here), str(other))
    assert system_ca_file(_known(None), files) == str(here)
    assert system_ca_file(_known(other), files) == str(other)
    assert system_ca_file(_known(None, tmp_path), files) == ""
    assert system_ca_file(_known(None), files[:1]) == ""
