"""Challenges of a registry, and the recipients of a password."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerd.registry.addresses import is_loopback, web_address
from containerd.registry.auth import Authorizer, _challenges
from containerd.registry.credentials import Credentials, credentials_for
from proto.errors import Code, DriverError

SCOPE = "repository:x:pull"
PASSWORD = "hush"
ALICE = Credentials(username="alice", password=PASSWORD)
BASIC = f"Basic {base64.b64encode(b'alice:hush').decode()}"


class TokenServer:
    """A token server with the same answer for every request, and a list of all requests."""

    def __init__(self, status: int = 200, body: bytes = b'{"token": "abc"}') -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.forms: list[str] = []
        self._answer = (status, body)

    def __call__(
        self, url: str, headers: dict[str, str], _: int, form: str = ""
    ) -> tuple[int, bytes]:
        self.asked.append((url, headers))
        self.forms.append(form)
        return self._answer


def answer(
    challenge: str,
    *,
    registry: str = "registry.example",
    credentials: Credentials | None = ALICE,
    server: TokenServer | None = None,
    over_tls: bool = True,
) -> str:
    """Returns the Authorization for a challenge; empty if the driver does not try."""
    authorizer = Authorizer(registry, credentials, server or TokenServer())
    if not authorizer.answer(challenge, SCOPE, sent="", over_tls=over_tls):
        return ""
    return authorizer.header


def refused(call: Callable[[], object]) -> DriverError:
    """Returns the error of a call."""
    with pytest.raises(DriverError) as caught:
        call()
    assert PASSWORD not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST",
        "localhost:5000",
        "127.0.0.1",
        "127.0.0.1:5000",
        "127.9.8.7",
        "[::1]",
        "[::1]:5000",
    ],
)
def test_this_machine_is_known_by_its_names(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:127",
        "evil.example#127.0.0.1",
        "evil.example/127.0.0.1",
        "evil.example?localhost",
        "localhost@evil.example",
        "127.0.0.1:80@evil.example",
        "127.0.0.1\\.evil.example",
        "notlocalhost",
        "localhost.localdomain",
        "128.0.0.1",
        "0.0.0.0",  # noqa: S104 - a name, nothing is bound
        "127.1",
        "2130706433",
        "[::]:5000",
        "[::1",
        "[::2]:5000",
        "[::ffff:10.0.0.1]",
        "10.0.0.1",
    ],
)
def test_no_other_name_is_this_machine(host: str) -> None:
    assert not is_loopback(host)


@given(st.text())
def test_no_name_upsets_the_question_whose_it_is(host: str) -> None:
    is_loopback(host)
    credentials_for(host, Credentials(username="a", password="", server_address=host))
    web_address(f"https://{host}")


@pytest.mark.parametrize(
    ("server_address", "registry"),
    [
        ("", "anything.example"),
        ("registry.example", "registry.example"),
        ("Registry.Example", "registry.example"),
        ("https://registry.example/v2/", "registry.example"),
        ("registry.example/v1", "registry.example"),
        ("127.0.0.1:5000", "127.0.0.1:5000"),
        ("[::1]:5000", "[::1]:5000"),
        ("docker.io", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
    ],
)
def test_credentials_are_for_the_registry_they_name(server_address: str, registry: str) -> None:
    mine = Credentials(username="a", password=PASSWORD, server_address=server_address)
    assert credentials_for(registry, mine) is mine


@pytest.mark.parametrize(
    ("server_address", "registry"),
    [
        ("registry.example", "evil.example"),
        ("registry.example", "registry.example.evil.example"),
        ("registry.example", "evilregistry.example"),
        ("registry.example", "registry.example:444"),
        ("registry.example:5000", "registry.example"),
        ("127.0.0.1:5000", "127.0.0.1:5001"),
        ("docker.io", "docker.io.evil.example"),
        ("docker.io", "quay.io"),
        ("https://a@registry.example", "registry.example"),
        ("https://[registry.example", "registry.example"),
        ("//", "registry.example"),
    ],
)
def test_credentials_of_one_registry_are_not_for_another(
    server_address: str, registry: str
) -> None:
    others = Credentials(username="a", password=PASSWORD, server_address=server_address)
    assert credentials_for(registry, others) is None
    assert credentials_for(registry, None) is None


def test_credentials_do_not_print_the_password() -> None:
    assert PASSWORD not in repr(ALICE)


def test_a_foreign_registry_gets_neither_password_nor_a_try() -> None:
    bound = Credentials(username="alice", password=PASSWORD, server_address="registry.example")
    server = TokenServer()
    assert answer("Basic realm=x", registry="evil.example", credentials=bound) == ""
    bearer = 'Bearer realm="https://evil.example/token"'
    got = answer(bearer, registry="evil.example", credentials=bound, server=server)
    assert got == "Bearer abc"  # an anonymous token
    assert server.asked[0][1] == {}


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", {}),
        ("Basic", {"basic": {}}),
        ('Basic realm="a b"', {"basic": {"realm": "a b"}}),
        ("BASIC Realm=x", {"basic": {"realm": "x"}}),
        (
            'Bearer realm="https://a/t",service="s",scope="repository:x:pull,push"',
            {
                "bearer": {
                    "realm": "https://a/t",
                    "service": "s",
                    "scope": "repository:x:pull,push",
                }
            },
        ),
        (
            'Bearer realm="https://a/t" , service = "s"',
            {"bearer": {"realm": "https://a/t", "service": "s"}},
        ),
        (
            'Bearer realm="https://a/t",service=s, Basic realm="b"',
            {"bearer": {"realm": "https://a/t", "service": "s"}, "basic": {"realm": "b"}},
        ),
        (
            'Basic realm="Bearer realm=evil, x", Bearer realm="https://a"',
            {"basic": {"realm": "Bearer realm=evil, x"}, "bearer": {"realm": "https://a"}},
        ),
        ('Bearer realm="a",realm="b"', {"bearer": {"realm": "a"}}),
        ('Bearer realm=""', {"bearer": {"realm": ""}}),
        ('Bearer realm="never ends', {"bearer": {}, "realm": {}}),
    ],
)
def test_challenges_are_told_apart(header: str, found: dict[str, dict[str, str]]) -> None:
    assert _challenges(header) == found


@given(st.text())
def test_any_challenge_is_read_to_its_end(header: str) -> None:
    for scheme in _challenges(header):
        assert scheme == scheme.lower()


def test_basic_gets_the_password_over_tls_or_on_this_machine() -> None:
    assert answer("Basic realm=x") == BASIC
    assert answer("Basic realm=x", registry="127.0.0.1:5000", over_tls=False) == BASIC
    assert answer("Basic realm=x", credentials=None) == ""
    error = refused(lambda: answer("Basic realm=x", over_tls=False))
    assert error.code is Code.DENIED
    assert "asks for a password without TLS" in str(error)


def test_a_token_is_preferred_to_the_password() -> None:
    both = 'Basic realm="b", Bearer realm="https://auth.example/t"'
    assert answer(both) == "Bearer abc"


def test_an_unknown_or_absent_challenge_is_not_answered() -> None:
    assert answer("") == ""
    assert answer("Negotiate") == ""
    assert answer("Digest realm=x, nonce=y") == ""


def test_the_same_answer_is_not_tried_twice() -> None:
    authorizer = Authorizer("registry.example", ALICE, TokenServer())
    assert authorizer.answer("Basic realm=x", SCOPE, sent="", over_tls=True)
    assert not authorizer.answer("Basic realm=x", SCOPE, sent=authorizer.header, over_tls=True)
    # A request sent before another thread's token is worth another try.
    assert authorizer.answer("Basic realm=x", SCOPE, sent="", over_tls=True)


def test_a_token_server_is_asked_for_the_scope_and_the_service() -> None:
    server = TokenServer()
    answer('Bearer realm="https://auth.example/t?a=b",service="my service"', server=server)
    url, headers = server.asked[0]
    parts = urlsplit(url)
    assert (parts.netloc, parts.path) == ("auth.example", "/t")
    assert parse_qs(parts.query) == {"a": ["b"], "scope": [SCOPE], "service": ["my service"]}
    assert headers == {"Authorization": BASIC}
    answer('Bearer realm="https://auth.example/t",scope="other"', server=server)
    assert server.asked[1][0] == "https://auth.example/t?scope=other"


def test_a_token_server_is_asked_without_a_password_when_there_is_none() -> None:
    server = TokenServer(body=b'{"access_token": "def"}')
    challenge = 'Bearer realm="https://auth.example/t"'
    assert answer(challenge, credentials=None, server=server) == "Bearer def"
    assert server.asked[0][1] == {}


def test_a_token_for_a_password_is_not_sent_in_plain_text_to_another_machine() -> None:
    server = TokenServer()
    challenge = 'Bearer realm="https://auth.example/t"'
    error = refused(lambda: answer(challenge, server=server, over_tls=False))
    assert error.code is Code.DENIED
    assert "asks for a password without TLS" in error.brief
    assert server.asked == []
    assert answer(challenge, credentials=None, server=server, over_tls=False) == "Bearer abc"
    assert answer(challenge, registry="localhost:5000", server=server, over_tls=False)


def test_an_identity_token_goes_into_the_body_and_to_no_basic_challenge() -> None:
    server = TokenServer()
    token = Credentials(username="", password="", identity_token="hush refresh")
    challenge = 'Bearer realm="https://auth.example/t?a=b",service="s"'
    assert answer(challenge, credentials=token, server=server) == "Bearer abc"
    assert server.asked == [("https://auth.example/t?a=b", {})]
    assert parse_qs(server.forms[0]) == {
        "grant_type": ["refresh_token"],
        "refresh_token": ["hush refresh"],
        "client_id": ["nomad-driver-containerd"],
        "service": ["s"],
        "scope": [SCOPE],
    }
    assert answer("Basic realm=x", credentials=token) == ""


@pytest.mark.parametrize(
    ("registry", "realm"),
    [
        ("registry.example", "http://registry.example/token"),
        ("registry.example", "http://127.0.0.1/token"),
        ("registry.example", "http://169.254.169.254/latest/meta-data"),
        ("127.0.0.1:5000", "http://localhost.evil.example/token"),
        ("127.0.0.1:5000", "http://127.0.0.1.evil.example/token"),
        ("127.0.0.1:5000", "HTTP://evil.example/token"),
    ],
)
def test_a_realm_without_tls_is_not_asked(registry: str, realm: str) -> None:
    server = TokenServer()
    error = refused(
        lambda: answer(f'Bearer realm="{realm}"', registry=registry, server=server, over_tls=False)
    )
    assert error.code is Code.DENIED
    assert not error.recoverable
    assert "names a token server without TLS" in error.brief
    assert server.asked == []


@pytest.mark.parametrize("realm", ["http://127.0.0.1:9/t", "http://localhost/t", "http://[::1]/t"])
def test_a_realm_without_tls_is_good_on_this_machine(realm: str) -> None:
    challenge = f'Bearer realm="{realm}"'
    assert answer(challenge, registry="localhost:5000", over_tls=False) == "Bearer abc"


@pytest.mark.parametrize(
    "realm",
    [
        "",
        "token",
        "/token",
        "//evil.example/token",
        "ftp://evil.example/token",
        "file:///etc/passwd",
        "https://",
        "https://:443/t",
        "https://a:b@evil.example/token",
        "https://registry.example\\@evil.example/",
        "http://127.0.0.1\\.evil.example/",
        "http://local\thost/",
        "https://[evil.example/token",
    ],
)
def test_a_realm_that_is_no_url_is_not_asked(realm: str) -> None:
    server = TokenServer()
    error = refused(lambda: answer(f'Bearer realm="{realm}"', server=server))
    assert error.code is Code.DENIED
    assert "names a token server without a valid URL" in error.brief
    assert server.asked == []


@pytest.mark.parametrize(
    ("status", "body", "code", "recoverable"),
    [
        (401, b"", Code.DENIED, False),
        (403, b"", Code.DENIED, False),
        (200, b"", Code.UNAVAILABLE, False),
        (200, b"{", Code.UNAVAILABLE, False),
        (200, b"[]", Code.UNAVAILABLE, False),
        (200, b"null", Code.UNAVAILABLE, False),
        (200, b"\xff\xfe", Code.UNAVAILABLE, False),
        (200, b"[" * 60000, Code.UNAVAILABLE, False),
        (200, b'{"token": 5}', Code.UNAVAILABLE, False),
        (200, b'{"token": ""}', Code.UNAVAILABLE, False),
        (200, b'{"token": "a\\r\\nHost: evil"}', Code.UNAVAILABLE, False),
        (200, b'{"token": "a b"}', Code.UNAVAILABLE, False),
        (200, '{"token": "\u00e9\u4e00"}'.encode(), Code.UNAVAILABLE, False),
        (302, b'{"token": "abc"}', Code.UNAVAILABLE, False),
        (404, b"", Code.UNAVAILABLE, False),
        (429, b"", Code.UNAVAILABLE, True),
        (500, b'{"token": "abc"}', Code.UNAVAILABLE, True),
    ],
)
def test_a_token_server_without_a_token_is_an_error_in_words(
    status: int, body: bytes, code: Code, *, recoverable: bool
) -> None:
    challenge = 'Bearer realm="https://auth.example/t"'
    error = refused(lambda: answer(challenge, server=TokenServer(status, body)))
    assert (error.code, error.recoverable) == (code, recoverable)
    assert "auth.example" in str(error)
    assert str(status) in error.details


@given(st.binary())
def test_no_answer_of_a_token_server_puts_more_than_a_token_into_the_header(body: bytes) -> None:
    try:
        header = answer('Bearer realm="https://auth.example/t"', server=TokenServer(body=body))
    except DriverError:
        return
    assert header.isascii()
    assert header.count(" ") == 1
    assert json.loads(body)
