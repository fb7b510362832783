"""Starts of a present `latest`: one HEAD request of the plugin decides, and no puller starts."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.images.messages import ImageReady
from actors.model.settings import Auth
from proto.errors import DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.registries import certificates, images
from tests.support.registries.http_proxy import HttpProxy
from tests.support.registries.image_store import Images
from tests.support.registries.images import Image
from tests.support.registries.pullers import pullers
from tests.support.registries.recording_server import Answer, Request
from tests.support.registries.registry import Registry
from tests.support.registries.scripted_registry import ScriptedRegistry

pytestmark = pytest.mark.containerd

POLICIES = pytest.mark.parametrize("policy", ["always", ""])


@pytest.fixture
def registry() -> Iterator[_Watched]:
    """Yields a registry that notes the pullers of this process at each request."""
    with _Watched() as running:
        yield running


class _Watched(ScriptedRegistry):
    """A registry whose `pullers` has the number of running pullers at each HEAD.

    `head` replaces the answers to HEAD requests; `token` asks for a token first. With `slow`, a
    HEAD waits until the next HEAD arrives.
    """

    def __init__(self) -> None:
        self.pullers: list[int] = []
        self.head: list[Answer] = []
        self.token = False
        self.slow: threading.Event | None = None
        super().__init__(fresh_image(), self._rule)

    def _rule(self, request: Request, honest: Answer) -> Answer:
        if request.path.startswith("/token"):
            return Answer(200, {}, b'{"token": "abc"}')
        if self.token and request.headers.get("authorization") != "Bearer abc":
            realm = f'Bearer realm="http://{self.host}/token"'
            return Answer(401, {"WWW-Authenticate": realm})
        if request.method == "HEAD":
            self.pullers.append(len(pullers(os.getpid())))
            if self.slow is not None and len(self.pullers) == 1:
                self.slow.wait(30)
            elif self.slow is not None:
                self.slow.set()
            return self.head.pop(0) if self.head else honest
        return honest

    def since(self, count: int) -> list[str]:
        """Returns the methods of the requests after the first `count` requests."""
        return [request.method for request in self.requests[count:]]


def fresh_image() -> Image:
    """Builds an image that containerd has never seen."""
    return images.build([images.layer({"hello": os.urandom(1000)})])


@POLICIES
def test_an_unchanged_image_needs_one_request_and_no_puller(
    store: Images, registry: _Watched, policy: str
) -> None:
    name = f"{registry.host}/same:latest"
    digest = store.get(name, image_pull_policy=policy).digest
    seen, events = len(registry.requests), len(store.events)
    assert store.get(name, image_pull_policy=policy).digest == digest
    assert registry.since(seen) == ["HEAD"]
    assert registry.pullers == [0]
    assert store.events[events:] == [
        "Asking the registry for a newer image",
        f"Image {digest} is what the registry has",
    ]


@POLICIES
def test_a_newer_image_is_pulled_without_a_second_head(
    store: Images, registry: _Watched, policy: str
) -> None:
    name = f"{registry.host}/moves:latest"
    store.get(name, image_pull_policy=policy)
    registry.image = newer = fresh_image()
    seen = len(registry.requests)
    assert store.get(name, image_pull_policy=policy).digest == newer.digest
    assert registry.since(seen) == ["HEAD", "GET", "GET", "GET"]


def test_a_token_is_fetched_as_in_a_pull(store: Images, registry: _Watched) -> None:
    registry.token = True
    name = f"{registry.host}/tickets:latest"
    store.get(name)
    seen = len(registry.requests)
    store.get(name)
    assert registry.since(seen) == ["HEAD", "GET", "HEAD"]
    assert registry.requests[-2].path.startswith("/token?scope=repository%3Atickets%3Apull")
    assert registry.pullers == [0]


@pytest.mark.parametrize("status", [405, 404, 403, 501])
def test_a_registry_without_head_is_asked_once_for_the_digest_and_then_for_the_manifest(
    store: Images, registry: _Watched, status: int
) -> None:
    name = f"{registry.host}/headless{status}:latest"
    digest = store.get(name).digest
    seen = len(registry.requests)
    registry.head = [Answer(status)]
    assert store.get(name).digest == digest
    assert registry.since(seen) == ["HEAD", "GET"]


def test_a_registry_that_is_slow_is_asked_by_a_puller(store: Images, registry: _Watched) -> None:
    name = f"{registry.host}/slow:latest"
    digest = store.get(name).digest
    registry.slow = threading.Event()
    seen = len(registry.requests)
    assert store.get(name).digest == digest
    assert registry.since(seen) == ["HEAD", "HEAD"]
    assert registry.pullers == [0, 1]


def test_always_waits_for_a_busy_registry_and_fresh_starts_the_present_image(
    store: Images, registry: _Watched
) -> None:
    name = f"{registry.host}/busy:latest"
    digest = store.get(name).digest
    registry.head = [Answer(429, {"Retry-After": "1"})]
    assert store.get(name).digest == digest
    assert store.events[-1].startswith("Registry not reachable, starting the image that is here")
    registry.head = [Answer(429, {"Retry-After": "1"})] * 2
    assert store.get(name, image_pull_policy="always").digest == digest
    assert any("the pull goes on in 1 s" in event for event in store.events)
    assert registry.pullers == [0, 0, 1, 1]


def test_a_proxy_a_mirror_and_a_private_ca_are_used_as_in_a_pull(
    containerd: ContainerdDaemon, tmp_path: Path
) -> None:
    ca = certificates.authority(tmp_path)
    server = certificates.signed(tmp_path, "r.example", ca, "DNS:r.example, IP:127.0.0.1")
    image = fresh_image()
    with (
        Registry(certificate=(server.file, server.key)) as served,
        HttpProxy(routes={"r.example:443": served.host}) as proxy,
    ):
        tls = ssl.create_default_context(cafile=str(ca.file))
        images.push(served.host, "all", "latest", image, tls=tls)
        store = Images(containerd, tmp_path, proxies={"HTTPS_PROXY": f"http://{proxy.host}"})
        # Only the proxy knows the mirror's name, and only the file knows the CA.
        store.hosts_file(
            "home.example",
            f'server = "https://home.invalid"\n[host."https://r.example"]\nca = "{ca.file}"',
        )
        store.get("home.example/all:latest")
        asked = len(proxy.asked)
        assert store.get("home.example/all:latest").digest == image.digest
        assert len(proxy.asked) == asked + 1
    assert store.events[-1] == f"Image {image.digest} is what the registry has"


def test_a_password_opens_a_present_image_and_a_wrong_password_does_not(
    containerd: ContainerdDaemon, tmp_path: Path
) -> None:
    image = fresh_image()
    good = Auth(username="alice", password="sesame")
    with Registry("alice", "sesame") as private:
        header = "Basic YWxpY2U6c2VzYW1l"
        name = images.push(private.host, "mine", "latest", image, header)
        store = Images(containerd, tmp_path)
        store.get(name, auth=good)

        def ask(auth: Auth | None) -> ImageReady:
            return store.get(name, auth=auth, image_pull_policy="always")

        assert ask(good).digest == image.digest
        assert store.events[-1] == f"Image {image.digest} is what the registry has"
        for wrong in (None, Auth(username="alice", password="guess")):
            with pytest.raises(DriverError, match="pull access denied"):
                ask(wrong)
