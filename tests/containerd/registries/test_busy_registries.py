"""Tests of registries, token servers and storage that ask for a retry, and of final errors."""

from __future__ import annotations

import email.utils
import itertools
import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.model.settings import Auth
from proto.errors import Code, DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.registries import images
from tests.support.registries.image_store import Images
from tests.support.registries.images import Image
from tests.support.registries.raw_server import RawServer
from tests.support.registries.recording_server import Answer, RecordingServer, Request
from tests.support.registries.scripted_registry import ScriptedRegistry

pytestmark = pytest.mark.containerd

TOO_MANY = b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "slow down, please"}]}'


@pytest.fixture
def store(containerd: ContainerdDaemon, tmp_path: Path) -> Images:
    """Images by the driver's own defaults."""
    return Images(containerd, tmp_path)


def fresh_image() -> Image:
    """Builds an image that containerd has never seen."""
    return images.build([images.layer({"hello": os.urandom(1000)})])


def at(kind: str, request: Request) -> bool:
    """Tells whether a request is for a manifest, or a blob, or a token."""
    return f"/{kind}" in request.path


def later(seconds: float) -> str:
    """Returns a point in time, in HTTP's form."""
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


@pytest.mark.parametrize("kind", ["manifests", "blobs"])
@pytest.mark.parametrize(
    "busy",
    [
        Answer(429, {"Retry-After": "1"}, TOO_MANY),
        Answer(429, {"Retry-After": later(-5)}, TOO_MANY),
        Answer(429, {}, TOO_MANY),
        Answer(408),
        Answer(500),
        Answer(502, {}, b"<html>Bad Gateway</html>"),
        Answer(503, {"Retry-After": "1"}),
        Answer(504, {"Retry-After": "soon"}),
        Answer(521),
        Answer(529, {"Retry-After": "1"}),
        Answer(200, {}, b"x" * 900, 0),
    ],
    ids=["429 s", "429 date", "429", "408", "500", "502", "503", "504", "521", "529", "cut"],
)
def test_a_registry_that_is_busy_for_a_moment_is_asked_again_and_that_is_told(
    store: Images, kind: str, busy: Answer
) -> None:
    image = fresh_image()
    left = itertools.chain([busy], itertools.repeat(None))

    def rule(request: Request, honest: Answer) -> Answer:
        return (next(left) if at(kind, request) else None) or honest

    with ScriptedRegistry(image, rule) as registry:
        assert store.get(f"{registry.host}/busy:1").digest == image.digest
    told = [event for event in store.events if "; the pull goes on in " in event]
    assert len(told) == 1
    assert registry.host in told[0]
    if busy.body == TOO_MANY:
        assert "TOOMANYREQUESTS: slow down, please" in told[0]
    assert "<html>" not in told[0]


def test_a_token_server_that_is_busy_is_asked_again(store: Images) -> None:
    image = fresh_image()
    busy = itertools.chain([Answer(503), Answer(429, {"Retry-After": "1"})], itertools.repeat(None))

    def rule(request: Request, honest: Answer) -> Answer:
        if at("token", request):
            return next(busy) or Answer(200, {}, b'{"token": "abc"}')
        if "authorization" in request.headers:
            return honest
        realm = f'Bearer realm="http://{registry.host}/token"'
        return Answer(401, {"WWW-Authenticate": realm})

    with ScriptedRegistry(image, rule) as registry:
        assert store.get(f"{registry.host}/tickets:1").digest == image.digest
    assert [event for event in store.events if "token server" in event]


@pytest.mark.parametrize("status", [501, 505, 511])
def test_what_a_registry_cannot_do_is_asked_for_once(store: Images, status: int) -> None:
    with RecordingServer(lambda _: Answer(status)) as server:
        with pytest.raises(DriverError, match=f"answered {status} for manifest 1"):
            store.get(f"{server.host}/cannot:1")
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_registry_that_says_no_is_asked_once(store: Images, status: int) -> None:
    body = b'{"errors": [{"code": "DENIED", "message": "not you, \\u001b[31mever"}]}'
    with RecordingServer(lambda _: Answer(status, {}, body)) as server:
        with pytest.raises(DriverError, match="pull access denied") as caught:
            store.get(f"{server.host}/no:1")
        assert len(server.requests) == 1
    assert f"status {status}: DENIED: not you,  [31mever" in caught.value.details


def test_a_wait_beyond_the_pulls_time_is_not_begun(store: Images) -> None:
    with RecordingServer(lambda _: Answer(429, {"Retry-After": "3600"}, TOO_MANY)) as server:
        with pytest.raises(DriverError, match="answered 429") as caught:
            store.get(f"{server.host}/later:1")
        assert len(server.requests) == 1
    assert caught.value.recoverable
    assert "the registry asks for a pause of 3600 s" in caught.value.details


@pytest.mark.parametrize("kind", ["manifests", "blobs"])
def test_a_wait_that_was_asked_for_is_no_silence(
    containerd: ContainerdDaemon, tmp_path: Path, kind: str
) -> None:
    store = Images(containerd, tmp_path, pull_activity_timeout_s=0.5)
    image = fresh_image()
    left = itertools.chain([Answer(429, {"Retry-After": "4"})], itertools.repeat(None))

    def rule(request: Request, honest: Answer) -> Answer:
        return (next(left) if at(kind, request) else None) or honest

    with ScriptedRegistry(image, rule) as registry:
        assert store.get(f"{registry.host}/patient:1").digest == image.digest


@pytest.mark.parametrize("scheme", ["Basic", "Bearer"])
def test_no_words_of_a_server_repeat_a_secret(store: Images, scheme: str) -> None:
    image = fresh_image()
    mine = Auth(username="alice", password="hush-hush")

    def rule(request: Request, honest: Answer) -> Answer:
        sent = request.headers.get("authorization", "")
        if at("blobs", request):
            return Answer(403, {}, f"you sent {sent} and hush-hush".encode())
        if not sent:
            return Answer(
                401, {"WWW-Authenticate": f'{scheme} realm="http://{registry.host}/token"'}
            )
        return Answer(200, {}, b'{"token": "secret-token"}') if at("token", request) else honest

    with ScriptedRegistry(image, rule) as registry, pytest.raises(DriverError) as caught:
        store.get(f"{registry.host}/echo:1", auth=mine)
    assert "you sent" in str(caught.value)
    for secret in ("hush-hush", "secret-token", "YWxpY2U6aHVzaC1odXNo"):
        assert secret not in str(caught.value)


def test_a_layer_that_the_registry_has_lost_is_no_matter_of_access(store: Images) -> None:
    image = fresh_image()
    words = b'{"errors": [{"code": "BLOB_UNKNOWN", "message": "blob unknown to registry"}]}'

    def rule(request: Request, honest: Answer) -> Answer:
        return Answer(404, {}, words) if at("blobs", request) else honest

    with ScriptedRegistry(image, rule) as registry, pytest.raises(DriverError) as caught:
        store.get(f"{registry.host}/lost:1")
    assert ": no blob sha256:" in str(caught.value)
    assert "BLOB_UNKNOWN: blob unknown to registry" in caught.value.details
    assert caught.value.resolution == "push the image again"


def test_a_busy_registry_is_asked_within_the_pulls_time_only(store: Images) -> None:
    with RecordingServer(lambda _: Answer(503)) as server:
        with pytest.raises(DriverError, match="answered 503") as caught:
            store.get(f"{server.host}/short:1", image_pull_timeout_s=4.0)
        assert 2 <= len(server.requests) <= 3
    assert caught.value.recoverable


def test_a_busy_mirror_delays_nobody(store: Images) -> None:
    image = fresh_image()
    with (
        RecordingServer(lambda _: Answer(429, {"Retry-After": "60"})) as mirror,
        ScriptedRegistry(image) as server,
    ):
        store.hosts_file(
            "q.example", f'server = "http://{server.host}"\n[host."http://{mirror.host}"]'
        )
        assert store.get("q.example/quick:1").digest == image.digest
    assert not [event for event in store.events if "the pull goes on" in event]


@pytest.mark.parametrize("policy", ["always", ""])
def test_an_unchanged_tag_costs_a_head_and_no_get(store: Images, policy: str) -> None:
    image = fresh_image()
    with ScriptedRegistry(image) as registry:
        name = f"{registry.host}/same:latest"
        store.get(name, image_pull_policy=policy)
        seen = len(registry.requests)
        for _ in range(3):
            assert store.get(name, image_pull_policy=policy).digest == image.digest
        assert [one.method for one in registry.requests[seen:]] == ["HEAD"] * 3
        assert store.events[-1] == f"Image {image.digest} is what the registry has"
        registry.image = newer = fresh_image()
        assert store.get(name, image_pull_policy=policy).digest == newer.digest


@pytest.mark.parametrize(
    "answer",
    [
        Answer(405),
        Answer(403),
        Answer(404),
        Answer(501),
        Answer(200),
        Answer(200, {"Docker-Content-Digest": "sha256:abc"}),
    ],
    ids=["405", "403", "404", "501", "no digest", "a wrong digest"],
)
def test_where_a_head_tells_nothing_a_get_does(store: Images, answer: Answer) -> None:
    image = fresh_image()

    def rule(request: Request, honest: Answer) -> Answer:
        return answer if request.method == "HEAD" else honest

    with ScriptedRegistry(image, rule) as registry:
        name = f"{registry.host}/headless:latest"
        store.get(name)
        registry.image = newer = fresh_image()
        assert store.get(name).digest == newer.digest


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
