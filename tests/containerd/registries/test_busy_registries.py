"""Tests of registries, token servers and storage that ask for a retry, and of final errors."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from actors.model.settings import Auth
from proto.errors import DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.registries.busy import at, fresh_image, later
from tests.support.registries.image_store import Images
from tests.support.registries.recording_server import Answer, RecordingServer, Request
from tests.support.registries.scripted_registry import ScriptedRegistry

pytestmark = pytest.mark.containerd
TOO_MANY = b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "slow down, please"}]}'


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
