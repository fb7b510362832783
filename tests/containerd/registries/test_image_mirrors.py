"""Registry hosts files against real registries: TLS with an own CA, mirrors, plain HTTP."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator

import pytest

from proto.errors import Code, DriverError
from tests.support.registries import certificates, images
from tests.support.registries.certificates import Certificate
from tests.support.registries.image_store import Images
from tests.support.registries.images import Image
from tests.support.registries.ports import free_port
from tests.support.registries.recording_server import Answer, RecordingServer, Request
from tests.support.registries.registry import Registry

pytestmark = pytest.mark.containerd

NOWHERE = "127.0.0.1:1"


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Makes a CA that no system trusts."""
    return certificates.authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def tls_registry(ca: Certificate) -> Iterator[Registry]:
    """Yields a registry behind TLS."""
    server = certificates.signed(ca.file.parent, "server", ca)
    with Registry(certificate=(server.file, server.key)) as running:
        yield running


def image_of(text: str) -> Image:
    """Builds a small image with one file."""
    return images.build([images.layer({"hello": text.encode()})])


def push_over_tls(
    registry: Registry, ca: Certificate, name: str, client: Certificate | None
) -> Image:
    """Pushes a small image and returns the image."""
    image = image_of(f"{name} {registry.host}")
    tls = ssl.create_default_context(cafile=str(ca.file))
    if client is not None:
        tls.load_cert_chain(client.file, client.key)
    images.push(registry.host, name, "1", image, tls=tls)
    return image


def test_a_registrys_own_ca_is_trusted_where_its_file_says_so(
    store: Images, ca: Certificate, tls_registry: Registry
) -> None:
    image = push_over_tls(tls_registry, ca, "own-ca", None)
    name = f"{tls_registry.host}/own-ca:1"
    with pytest.raises(DriverError, match="cannot be read") as caught:
        store.get(name)
    assert "does not trust the certificate" in caught.value.resolution
    assert not caught.value.recoverable
    store.hosts_file(tls_registry.host, f'ca = "{ca.file}"')
    assert store.get(name).digest == image.digest


def test_the_ca_of_another_registry_is_not_trusted_for_this_one(
    store: Images, ca: Certificate, tls_registry: Registry
) -> None:
    push_over_tls(tls_registry, ca, "other-ca", None)
    store.hosts_file("127.0.0.1:9", f'ca = "{ca.file}"')
    with pytest.raises(DriverError, match="cannot be read"):
        store.get(f"{tls_registry.host}/other-ca:1")


@pytest.mark.parametrize("names", ["DNS:other.example", "DNS:127.0.0.1", "IP:127.0.0.2"])
def test_a_certificate_for_another_host_is_not_trusted(
    store: Images, ca: Certificate, names: str
) -> None:
    server = certificates.signed(ca.file.parent, "misnamed", ca, names)
    with Registry(certificate=(server.file, server.key)) as registry:
        store.hosts_file(registry.host, f'ca = "{ca.file}"')
        with pytest.raises(DriverError, match="cannot be read") as caught:
            store.get(f"{registry.host}/misnamed:1")
    assert "the certificate is for another host" in caught.value.resolution
    assert not caught.value.recoverable


def test_dockers_layout_of_certificates_is_read(
    store: Images, ca: Certificate, tls_registry: Registry
) -> None:
    image = push_over_tls(tls_registry, ca, "docker-layout", None)
    file = store.hosts_file(tls_registry.host, "")
    file.rename(file.with_name("ignored"))
    (file.parent / "ca.crt").write_bytes(ca.file.read_bytes())
    assert store.get(f"{tls_registry.host}/docker-layout:1").digest == image.digest


def test_nobody_is_checked_where_the_operator_says_so(
    store: Images, ca: Certificate, tls_registry: Registry
) -> None:
    image = push_over_tls(tls_registry, ca, "skip", None)
    store.hosts_file(tls_registry.host, "skip_verify = true")
    assert store.get(f"{tls_registry.host}/skip:1").digest == image.digest


def test_a_client_certificate_opens_a_registry_that_asks_for_one(
    store: Images, ca: Certificate
) -> None:
    directory = ca.file.parent
    server = certificates.signed(directory, "strict", ca)
    client = certificates.signed(directory, "client", ca)
    with Registry(certificate=(server.file, server.key), client_ca=ca.file) as registry:
        image = push_over_tls(registry, ca, "clients", client)
        name = f"{registry.host}/clients:1"
        store.hosts_file(registry.host, f'ca = "{ca.file}"')
        with pytest.raises(DriverError, match="cannot be read"):
            store.get(name)
        store.hosts_file(
            registry.host, f'ca = ["{ca.file}"]\nclient = [["{client.file}", "{client.key}"]]'
        )
        assert store.get(name).digest == image.digest


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ('ca = "bad.pem"', "bad.pem of registry host .* is no CA in PEM form"),
        ('client = [["bad.pem", "bad.pem"]]', "bad.pem of registry host .* is no client cert"),
    ],
)
def test_a_certificate_that_is_none_is_named(
    store: Images, tls_registry: Registry, keys: str, words: str
) -> None:
    file = store.hosts_file(tls_registry.host, keys)
    (file.parent / "bad.pem").write_text("this is no certificate")
    with pytest.raises(DriverError, match=words) as caught:
        store.get(f"{tls_registry.host}/own-ca:2")
    assert caught.value.code is Code.INVALID


def test_a_key_with_a_passphrase_is_an_error_and_asks_nobody(
    store: Images, ca: Certificate, tls_registry: Registry
) -> None:
    locked = ca.file.parent / "locked.key"
    subprocess.run(
        [
            *("openssl", "ec", "-aes256", "-passout", "pass:x"),
            *("-in", str(ca.key), "-out", str(locked)),
        ],
        check=True,
        capture_output=True,
    )
    store.hosts_file(tls_registry.host, f'client = [["{ca.file}", "{locked}"]]')
    with pytest.raises(DriverError, match="is no client certificate"):
        store.get(f"{tls_registry.host}/own-ca:3")


def test_docker_hubs_images_come_from_a_mirror_on_loopback(
    store: Images, registry: Registry
) -> None:
    image = image_of("mirrored")
    images.push(registry.host, "library/mirrored", "1", image)
    store.hosts_file(
        "docker.io",
        f'server = "http://{NOWHERE}"\n[host."http://{registry.host}"]\n'
        'capabilities = ["pull", "resolve"]',
    )
    ready = store.get("mirrored:1")
    assert (ready.name, ready.digest) == ("docker.io/library/mirrored:1", image.digest)


def test_mirrors_are_tried_in_order_and_then_the_server(store: Images, registry: Registry) -> None:
    image = image_of("in order")
    images.push(registry.host, "library/ordered", "1", image)
    with (
        RecordingServer(lambda _: Answer(503)) as first,
        RecordingServer(lambda _: Answer()) as second,
    ):
        store.hosts_file(
            "docker.io",
            f'server = "http://{registry.host}"\n[host."http://{first.host}"]\n'
            f'[host."http://{second.host}"]\n[host."http://{NOWHERE}"]',
        )
        assert store.get("ordered:1").digest == image.digest
        paths = [server.requests[0].path for server in (first, second)]
    assert paths == ["/v2/library/ordered/manifests/1?ns=docker.io"] * 2


def test_every_attempt_is_named_when_all_fail(store: Images, registry: Registry) -> None:
    with RecordingServer(lambda _: Answer(503)) as mirror:
        store.hosts_file(
            "q.example",
            f'server = "http://{registry.host}"\n[host."http://{NOWHERE}"]\n'
            f'[host."http://{mirror.host}"]',
        )
        with pytest.raises(DriverError, match="pull access denied, repository does not") as caught:
            store.get("q.example/no/such:1")
    for place in (NOWHERE, mirror.host, registry.host):
        assert place in caught.value.details
    assert "503" in caught.value.details
    assert not caught.value.recoverable  # the registry itself has spoken


def test_with_all_places_away_the_start_may_be_tried_again(store: Images) -> None:
    store.hosts_file("q.example", f'server = "http://{NOWHERE}"\n[host."http://127.0.0.1:2"]')
    with pytest.raises(DriverError, match="cannot be read") as caught:
        store.get("q.example/no/such:1")
    assert caught.value.recoverable
    assert "http://127.0.0.1:2/" in caught.value.details
    assert f"http://{NOWHERE}/" in caught.value.details


def test_a_registry_on_loopback_that_is_away_names_both_attempts(store: Images) -> None:
    host = f"127.0.0.1:{free_port()}"
    with pytest.raises(DriverError, match="cannot be read") as caught:
        store.get(f"{host}/x:1")
    tried, then = caught.value.details.split("; ")
    assert tried == f"https://{host}: Connection refused"
    assert then.startswith(f"http://{host}/")
    # The error has the system's words, not urllib3's name of the connection.
    assert then.endswith(": Failed to establish a new connection: Connection refused")
    assert caught.value.resolution == "check the registry and the network"
    assert caught.value.recoverable


def test_a_mirror_that_lies_is_found_out_and_the_server_asked(
    store: Images, registry: Registry
) -> None:
    image = image_of("true")
    images.push(registry.host, "library/lied", "1", image)
    body = {"manifests": image.body}

    def lie(request: Request) -> Answer:
        kind = request.path.split("/")[-2]
        headers = {"Content-Type": image.media_type}
        return Answer(200, headers, body.get(kind, b"x" * 100))

    with RecordingServer(lie) as mirror:
        store.hosts_file(
            "docker.io", f'server = "http://{registry.host}"\n[host."http://{mirror.host}"]'
        )
        assert store.get("lied:1").digest == image.digest
        assert any("/blobs/" in request.path for request in mirror.requests)


def test_a_mirror_without_the_capability_is_not_asked_for_names(
    store: Images, registry: Registry
) -> None:
    image = image_of("capable")
    images.push(registry.host, "library/capable", "1", image)
    with RecordingServer(lambda _: Answer()) as mirror:
        store.hosts_file(
            "docker.io",
            f'server = "http://{registry.host}"\n[host."http://{mirror.host}"]\n'
            'capabilities = ["pull"]',
        )
        assert store.get("capable:1").digest == image.digest
        assert mirror.requests
        assert all("/blobs/" in request.path for request in mirror.requests)


def test_no_place_with_the_capability_is_said(store: Images) -> None:
    store.hosts_file("q.example", f'server = "http://{NOWHERE}"\ncapabilities = ["push"]')
    with pytest.raises(DriverError, match="no host can serve") as caught:
        store.get("q.example/x:1")
    assert "capability" in caught.value.details


def test_paths_and_headers_of_a_mirror_are_its_own(store: Images) -> None:
    with (
        RecordingServer(lambda _: Answer()) as elsewhere,
        RecordingServer(
            lambda _: Answer(307, {"Location": f"http://{elsewhere.host}/cdn"})
        ) as mirror,
    ):
        address = f"http://{mirror.host}/api/docker"
        store.hosts_file(
            "q.example",
            f'server = "http://{NOWHERE}"\n[host."{address}"]\noverride_path = true\n'
            f'[host."{address}".header]\nx-token = "for-the-mirror"',
        )
        with pytest.raises(DriverError):
            store.get("q.example/x:1")
    assert mirror.requests[0].path.startswith("/api/docker/x/manifests/1")
    assert mirror.requests[0].headers["x-token"] == "for-the-mirror"
    assert elsewhere.requests
    assert "for-the-mirror" not in elsewhere.seen()


def test_a_wrong_file_fails_the_pull_with_its_name(store: Images, registry: Registry) -> None:
    file = store.hosts_file(registry.host, "skip_verify = 'yes'")
    with pytest.raises(DriverError, match="skip_verify: 'yes' is not true or false") as caught:
        store.get(f"{registry.host}/x:1")
    assert str(file) in caught.value.brief
    assert not caught.value.recoverable


def test_the_default_is_for_registries_without_a_file(store: Images, registry: Registry) -> None:
    image = image_of("default")
    images.push(registry.host, "any/thing", "1", image)
    store.hosts_file("_default", f'server = "http://{registry.host}"')
    assert store.get("q.example/any/thing:1").digest == image.digest
