"""Tests of redirects of a registry to its storage, and of answers that no registry sends."""

from __future__ import annotations

import itertools
import json
import secrets
import subprocess
from collections.abc import Iterator

import pytest

from proto.errors import Code, DriverError
from tests.support.registries.busy import at, fresh_image, later
from tests.support.registries.image_store import Images
from tests.support.registries.raw_server import RawServer
from tests.support.registries.recording_server import Answer, RecordingServer, Request
from tests.support.registries.scripted_registry import ScriptedRegistry

pytestmark = pytest.mark.containerd


def test_the_storage_behind_a_registry_is_named_asked_once_more_and_its_clock_compared(
    store: Images,
) -> None:
    image = fresh_image()
    words = b"<Error><Code>RequestTimeTooSkewed</Code><Message>Expired</Message></Error>"

    def refuses(_: Request) -> Answer:
        return Answer(403, {"Date": later(-3600)}, words)

    with RecordingServer(refuses) as storage:

        def rule(request: Request, honest: Answer) -> Answer:
            where = f"http://{storage.host}/bucket/x?X-Amz-Signature=hush"
            return Answer(307, {"Location": where}) if at("blobs", request) else honest

        with ScriptedRegistry(image, rule) as registry:
            with pytest.raises(DriverError) as caught:
                store.get(f"{registry.host}/stored:1")
            name = registry.host
        assert len(storage.requests) == 2
    text = str(caught.value)
    assert f"the storage {storage.host} of registry {name} answered 403" in text
    assert f"http://{storage.host}/bucket/x: RequestTimeTooSkewed: Expired" in text
    assert "ahead of the storage's" in caught.value.resolution
    assert "hush" not in text
    assert "auth block" not in text
    assert caught.value.recoverable


def test_a_fresh_url_of_the_storage_is_enough(store: Images) -> None:
    image = fresh_image()
    with RecordingServer(
        lambda request: (
            Answer(200, {}, image.blobs[request.path.partition("?")[0][1:]])
            if request.path.endswith("?fresh")
            else Answer(400)
        )
    ) as storage:
        signs = itertools.cycle(["old", "fresh"])

        def rule(request: Request, honest: Answer) -> Answer:
            digest = request.path.rpartition("/")[2]
            where = f"http://{storage.host}/{digest}?{next(signs)}"
            return Answer(307, {"Location": where}) if at("blobs", request) else honest

        with ScriptedRegistry(image, rule) as registry:
            assert store.get(f"{registry.host}/fresh:1").digest == image.digest


def test_a_refused_redirect_shows_no_signature(store: Images) -> None:
    where = "http://192.0.2.1/b?X-Amz-Signature=hush"
    with (
        RecordingServer(lambda _: Answer(307, {"Location": where})) as server,
        pytest.raises(DriverError, match="redirects to plain text") as caught,
    ):
        store.get(f"{server.host}/x:1")
    assert "http://192.0.2.1/b" in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html>Log in", b"\r\n <html>Sorry"])
def test_a_web_page_is_told_as_one_and_the_image_that_is_here_starts(
    store: Images, page: bytes
) -> None:
    image = fresh_image()
    pages = list[Answer]()

    def rule(_: Request, honest: Answer) -> Answer:
        return pages[0] if pages else honest

    with ScriptedRegistry(image, rule) as registry:
        name = f"{registry.host}/paged"
        store.get(name)
        pages.append(Answer(200, {"Content-Type": "text/html"}, page))
        assert store.get(name).digest == image.digest
        assert "answered with a web page instead of a manifest" in store.events[-1]
        for selector in ("other:1", f"other@{image.digest}"):
            with pytest.raises(DriverError, match="answered with a web page") as caught:
                store.get(f"{registry.host}/{selector}")
            assert caught.value.recoverable


def test_a_redirect_without_a_location_is_told_as_one(store: Images) -> None:
    with (
        RecordingServer(lambda _: Answer(307)) as server,
        pytest.raises(DriverError, match="redirects without a Location header"),
    ):
        store.get(f"{server.host}/x:1")
    assert len(server.requests) == 1


def test_only_the_cause_is_told_of_a_plain_registry(store: Images) -> None:
    garbage = [b"\0garbage\r\n\r\n"]
    with RawServer(lambda _: garbage) as server, pytest.raises(DriverError) as caught:
        store.get(f"{server.host}/x:1")
    assert caught.value.details.startswith(f"http://{server.host}/v2/x/manifests/1: ")
    assert "SSL" not in caught.value.details


@pytest.fixture
def address() -> Iterator[str]:
    """Yields an address of this machine without a loopback name (RFC 2544)."""
    own = f"198.18.{secrets.randbelow(256)}.{1 + secrets.randbelow(254)}"
    subprocess.run(["ip", "addr", "add", f"{own}/32", "dev", "lo"], check=True)
    yield own
    subprocess.run(["ip", "addr", "del", f"{own}/32", "dev", "lo"], check=True)


def test_s13_storage_and_tokens_of_a_registry_that_the_operator_made_plain_may_be_plain(
    store: Images, address: str
) -> None:
    image = fresh_image()
    with RecordingServer(
        lambda request: Answer(200, {}, image.blobs[request.path[1:]]), address
    ) as storage:

        def rule(request: Request, honest: Answer) -> Answer:
            if at("token", request):
                return Answer(200, {}, b'{"token": "abc"}')
            if "authorization" not in request.headers:
                realm = f'Bearer realm="http://{registry.host}/token"'
                return Answer(401, {"WWW-Authenticate": realm})
            digest = request.path.partition("?")[0].rpartition("/")[2]
            where = f"http://{storage.host}/{digest}"
            return Answer(307, {"Location": where}) if at("blobs", request) else honest

        with ScriptedRegistry(image, rule, "127.0.0.2") as registry:
            store.hosts_file("harbor.example", f'server = "http://{registry.host}"')
            assert store.get("harbor.example/plain:1").digest == image.digest
        assert storage.requests
        assert not [one for one in storage.requests if "authorization" in one.headers]


def test_scopes_are_asked_for_one_by_one(store: Images) -> None:
    image = fresh_image()

    def rule(request: Request, honest: Answer) -> Answer:
        if at("token", request):
            return Answer(200, {}, json.dumps({"token": "abc"}).encode())
        if "authorization" in request.headers:
            return honest
        realm = f'Bearer realm="http://{registry.host}/token",scope="repository:a:pull repo:b:pull"'
        return Answer(401, {"WWW-Authenticate": realm})

    with ScriptedRegistry(image, rule) as registry:
        store.get(f"{registry.host}/scopes:1")
        (asked,) = [one.path for one in registry.requests if at("token", one)]
    assert asked == "/token?scope=repository%3Aa%3Apull&scope=repo%3Ab%3Apull"


def test_a_denied_pull_of_a_token_server_has_its_words(store: Images) -> None:
    def answer(request: Request) -> Answer:
        if at("token", request):
            return Answer(403, {}, b'{"errors": [{"code": "DENIED", "message": "expired plan"}]}')
        return Answer(401, {"WWW-Authenticate": f'Bearer realm="http://{server.host}/token"'})

    with RecordingServer(answer) as server, pytest.raises(DriverError) as caught:
        store.get(f"{server.host}/x:1")
    assert caught.value.code is Code.DENIED
    assert "answered 403: DENIED: expired plan" in caught.value.details
