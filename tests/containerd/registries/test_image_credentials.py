"""Tests of credentials: real registries get their password, and other servers get none."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import MappingProxyType
from urllib.parse import parse_qs

import pytest

from actors.model.settings import Auth
from actors.processes import child_process
from proto.errors import Code, DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.registries import images
from tests.support.registries.image_store import Images
from tests.support.registries.recording_server import Answer, RecordingServer, Request
from tests.support.registries.registry import Registry

pytestmark = pytest.mark.containerd

USER, PASSWORD = "alice", "hush-hush-7"
BASIC = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
DENIED = "pull access denied, repository does not exist or may require authorization"
ALICE = Auth(username=USER, password=PASSWORD)
MALLORY = Auth(username="mallory", password="guessed")


@pytest.fixture(scope="module")
def private(containerd: ContainerdDaemon) -> Iterator[Registry]:
    """Yields a registry that only alice may read."""
    with Registry(USER, PASSWORD) as running:
        yield running


@pytest.fixture
def image(private: Registry, request: pytest.FixtureRequest) -> str:
    """Pushes a private image for the test."""
    name = request.node.name.partition("[")[0][5:60].lower()
    made = images.build([images.layer({"hello": request.node.name.encode()})])
    return images.push(private.host, name, "1", made, BASIC)


@pytest.fixture
def no_secrets(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Checks that no log line has a password."""
    caplog.set_level(logging.DEBUG)
    yield
    assert PASSWORD not in caplog.text
    assert BASIC not in caplog.text


@pytest.fixture
def make(containerd: ContainerdDaemon, tmp_path: Path, no_secrets: None) -> Callable[..., Images]:
    """Images by options of the driver."""
    return lambda **settings: Images(containerd, tmp_path, **settings)


def refused(call: Callable[[], object], words: str = DENIED) -> DriverError:
    """Returns the error of a call, and checks that the error has no password."""
    with pytest.raises(DriverError, match=words) as caught:
        call()
    assert PASSWORD not in str(caught.value)
    assert BASIC not in str(caught.value)
    return caught.value


def at(host: str) -> Auth:
    """Binds alice's password to a registry."""
    return Auth(username=USER, password=PASSWORD, server_address=host)


def test_a_private_image_needs_the_right_password(make: Callable[..., Images], image: str) -> None:
    store = make()
    for auth in (None, MALLORY):
        error = refused(partial(store.get, image, auth=auth))
        assert error.brief == f"Error in pulling image {image}: {DENIED}"
        assert not error.recoverable
    assert store.record(image) is None
    assert store.get(image, auth=ALICE).name == image


def test_who_has_no_right_gets_no_image_that_another_pulled_when_asking_always(
    make: Callable[..., Images], image: str
) -> None:
    store = make()
    store.get(image, auth=ALICE)
    for auth in (None, MALLORY):
        refused(partial(store.get, image, auth=auth, image_pull_policy="always"))
        refused(partial(store.get, image, auth=auth, force_pull=True))
        # As with Docker: an image of the node is the node's.
        assert store.get(image, auth=auth, image_pull_policy="missing").name == image


def test_latest_is_not_given_to_who_has_no_right(
    make: Callable[..., Images], private: Registry
) -> None:
    made = images.build([images.layer({"hello": b"latest"})])
    name = images.push(private.host, "rights-to-latest", "latest", made, BASIC)
    store = make()
    store.get(name, auth=ALICE)
    refused(lambda: store.get(name, auth=MALLORY))
    refused(lambda: store.get(name))


def test_the_drivers_password_is_for_the_server_that_it_names(
    make: Callable[..., Images], image: str, private: Registry
) -> None:
    refused(lambda: make(auth=ALICE).get(image))  # for docker.io
    refused(lambda: make(auth=at("127.0.0.1")).get(image))
    assert make(auth=at(private.host)).get(image).name == image


def test_a_config_file_gives_the_password(
    make: Callable[..., Images], image: str, private: Registry, tmp_path: Path
) -> None:
    packed = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"auths": {f"https://{private.host}/v2/": {"auth": packed}}}))
    assert make(auth_config=str(config)).get(image).name == image


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Installs a helper `docker-credential-store` that gives alice's password for any registry."""
    program = tmp_path / "bin" / "docker-credential-store"
    program.parent.mkdir()
    answer = json.dumps({"Username": USER, "Secret": PASSWORD})
    program.write_text(f"#!/bin/sh\ncat >> $0.asked; echo >> $0.asked; echo '{answer}'\n")
    program.chmod(0o755)
    path = f"{program.parent}:{child_process.BASE_ENVIRONMENT['PATH']}"
    environment = MappingProxyType({**child_process.BASE_ENVIRONMENT, "PATH": path})
    monkeypatch.setattr(child_process, "BASE_ENVIRONMENT", environment)
    return program


def test_a_helper_gives_the_password_when_a_registry_is_asked_and_not_before(
    make: Callable[..., Images], image: str, private: Registry, helper: Path
) -> None:
    store = make(auth_helper="store")
    assert store.get(image).name == image
    asked = Path(f"{helper}.asked")
    assert asked.read_text() == f"{private.host}\n"
    assert store.get(image).name == image  # the image is present
    assert asked.read_text() == f"{private.host}\n"


def test_a_soft_failure_pulls_without_a_password(
    make: Callable[..., Images], registry: Registry, busybox_image: str, tmp_path: Path
) -> None:
    store = make(auth_config=str(tmp_path / "none.json"))
    refused(lambda: store.get(busybox_image, force_pull=True), "none.json cannot be read")
    assert store.get(busybox_image, force_pull=True, auth_soft_fail=True).name == busybox_image
    assert any("Pulling without credentials" in event for event in store.events)


def test_a_soft_failure_opens_no_private_image(make: Callable[..., Images], image: str) -> None:
    store = make()
    refused(lambda: store.get(image, auth=MALLORY, auth_soft_fail=True))
    assert any("once more without credentials" in event for event in store.events)


def test_a_soft_failure_tries_again_without_what_was_refused(make: Callable[..., Images]) -> None:
    def answer(request: Request) -> Answer:
        wrong = "authorization" in request.headers
        challenge = {"WWW-Authenticate": "Basic realm=x"}
        return Answer(401, challenge) if wrong or not tries else Answer(404)

    tries: list[int] = []
    with RecordingServer(answer) as server:
        store = make()
        store.events = _Noting(tries)
        refused(lambda: store.get(f"{server.host}/x:1", auth=MALLORY, auth_soft_fail=True))
    assert "authorization" not in server.requests[-1].headers
    assert "authorization" in server.requests[1].headers


class _Noting(list[str]):
    """Events that also count the second try."""

    def __init__(self, tries: list[int]) -> None:
        super().__init__()
        self._tries = tries

    def append(self, event: str) -> None:
        super().append(event)
        if "once more" in event:
            self._tries.append(1)


# --- S13: secrets that other servers must not get

CHALLENGES = {
    "basic": {"WWW-Authenticate": 'Basic realm="give it to me"'},
    "own realm": {"WWW-Authenticate": 'Bearer realm="http://HOST/token",service="x"'},
    "both": {"WWW-Authenticate": 'Basic realm="x", Bearer realm="http://HOST/token"'},
}


@pytest.mark.parametrize("challenge", CHALLENGES)
@pytest.mark.parametrize("server", ["", "docker.io", "127.0.0.1:5000", "registry.example"])
def test_the_operators_password_is_not_for_a_registry_that_a_job_names(
    make: Callable[..., Images], challenge: str, server: str, helper: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps({"auths": {"r.example": {"username": USER, "password": PASSWORD}}})
    )

    def answer(request: Request) -> Answer:
        headers = {k: v.replace("HOST", evil.host) for k, v in CHALLENGES[challenge].items()}
        if request.path.startswith("/token"):
            return Answer(200, body=b'{"token": "abc"}')
        return Answer(401, headers)

    with RecordingServer(answer) as evil:
        store = make(auth=at(server), auth_config=str(config))
        refused(lambda: store.get(f"{evil.host}/x:1"))
    assert evil.requests
    assert BASIC not in evil.seen()
    assert PASSWORD not in evil.seen()


def test_a_jobs_password_for_one_registry_is_not_for_another(make: Callable[..., Images]) -> None:
    with RecordingServer(lambda _: Answer(401, CHALLENGES["basic"])) as evil:
        refused(lambda: make().get(f"{evil.host}/x:1", auth=at("registry.example")))
    assert BASIC not in evil.seen()


def test_a_mirror_does_not_get_the_registrys_password(make: Callable[..., Images]) -> None:
    def challenged(_: Request) -> Answer:
        return Answer(401, CHALLENGES["basic"])

    with RecordingServer(challenged) as mirror, RecordingServer(challenged) as server:
        store = make()
        store.hosts_file(
            server.host, f'server = "http://{server.host}"\n[host."http://{mirror.host}"]'
        )
        refused(lambda: store.get(f"{server.host}/x:1", auth=ALICE))
    assert mirror.requests
    assert BASIC not in mirror.seen()
    assert BASIC in server.seen()


def test_what_a_registry_redirects_to_does_not_get_the_password(
    make: Callable[..., Images],
) -> None:
    with RecordingServer(lambda _: Answer(401, CHALLENGES["basic"])) as evil:

        def answer(request: Request) -> Answer:
            if "authorization" not in request.headers:
                return Answer(401, CHALLENGES["basic"])
            return Answer(307, {"Location": f"http://{evil.host}/v2/x/manifests/1"})

        with RecordingServer(answer) as server:
            refused(lambda: make().get(f"{server.host}/x:1", auth=ALICE))
    assert BASIC in server.seen()
    assert evil.requests
    assert BASIC not in evil.seen()


def test_a_password_does_not_go_to_another_machine_in_plain_text(
    make: Callable[..., Images],
) -> None:
    """Uses an address without an owner: the driver refuses before sending anything."""
    realm = {"WWW-Authenticate": 'Bearer realm="http://192.0.2.1/token"'}
    with RecordingServer(lambda _: Answer(401, realm)) as server:
        error = refused(
            lambda: make().get(f"{server.host}/x:1", auth=ALICE), "token server without TLS"
        )
    assert error.code is Code.DENIED


def test_an_identity_token_is_exchanged_at_the_token_server(
    make: Callable[..., Images], tmp_path: Path
) -> None:
    built = images.build([images.layer({"hello": b"token"})])

    def answer(request: Request) -> Answer:
        if request.path.startswith("/token"):
            form = parse_qs(request.body.decode())
            good = form.get("refresh_token") == [PASSWORD] and request.method == "POST"
            return Answer(200, body=b'{"access_token": "good"}') if good else Answer(401)
        if request.headers.get("authorization") != "Bearer good":
            return Answer(401, {"WWW-Authenticate": f'Bearer realm="http://{server.host}/token"'})
        name = request.path.rpartition("/")[2]
        if "/manifests/" in request.path:
            return Answer(200, {"Content-Type": built.media_type}, built.body)
        return Answer(200, {}, built.blobs[name])

    config = tmp_path / "config.json"
    with RecordingServer(answer) as server:
        entry = {"auth": base64.b64encode(b"x:").decode(), "identitytoken": PASSWORD}
        config.write_text(json.dumps({"auths": {server.host: entry}}))
        assert make(auth_config=str(config)).get(f"{server.host}/x:1").digest == built.digest
    posts = [request for request in server.requests if request.method == "POST"]
    assert posts
    assert all(PASSWORD not in request.path for request in server.requests)
    assert parse_qs(posts[0].body.decode())["scope"] == ["repository:x:pull"]


# --- S22


def test_a_pull_that_runs_shows_no_password_in_the_process_table(
    make: Callable[..., Images], tmp_path: Path
) -> None:
    found: list[bytes] = []

    def answer(request: Request) -> Answer:
        if "authorization" in request.headers:
            found.extend(_processes(b"puller.py"))
        return Answer(401, CHALLENGES["basic"])

    with RecordingServer(answer) as server:
        refused(lambda: make().get(f"{server.host}/x:1", auth=ALICE))
    assert found
    assert all(PASSWORD.encode() not in text and BASIC.encode() not in text for text in found)


def _processes(word: bytes) -> list[bytes]:
    """Returns command lines and environments of processes with a word in the command line."""
    texts = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
            if word in command:
                texts.append(command + (entry / "environ").read_bytes())
        except OSError:
            continue
    return texts
