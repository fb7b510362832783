"""Texts for a registry's failures, and the failures worth a retry."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl

import pytest
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from containerd.registry import errors
from containerd.registry.proxies import Proxy
from containerd.registry.retries import Transient
from containerd.registry.shown_text import message, shown

URL = "https://r.example/v2/x/manifests/1"
PROXY = Proxy(url="http://proxy.example:3128", variable="HTTPS_PROXY")


@pytest.mark.parametrize(
    ("url", "text"),
    [
        (URL, URL),
        (f"{URL}?X-Amz-Signature=hush", URL),
        (f"{URL}#hush", URL),
        ("https://user:hush@r.example/x", "https://r.example/x"),
        ("/v2/x?hush", "/v2/x"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_what_may_be_a_secret(url: str, text: str) -> None:
    assert shown(url) == text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"errors":[{"code":"DENIED","message":"no pull for you"}]}', "DENIED: no pull for you"),
        (b'{"errors":[{"code":"X","message":"m","detail":"d"},{"code":"Y"}]}', "X: m: d"),
        (b'{"errors":[{"code":"X","detail":{"a":1}}]}', "X"),
        (b'{"errors":[{"message":"\\u001b[31mred"}]}', "[31mred"),
        (b'{"errors":[]}', '{"errors":[]}'),
        (b'{"details":"incorrect username"}', '{"details":"incorrect username"}'),
        (
            b"<?xml?><Error><Code>AccessDenied</Code><Message>Expired</Message></Error>",
            "AccessDenied: Expired",
        ),
        (b"<Error><Code>ExpiredToken</Code></Error>", "ExpiredToken"),
        (b"<!DOCTYPE html><HTML><body>Bad Gateway", ""),
        (b"plain\r\nwords\0", "plain  words"),
        (b"", ""),
        (b"x" * 9999, "x" * 200),
    ],
)
def test_the_first_message_of_an_answer_is_told(body: bytes, text: str) -> None:
    assert message(body) == text


@given(st.binary(), st.text())
def test_nothing_that_a_server_sends_upsets_its_words(body: bytes, url: str) -> None:
    assert len(message(body)) <= 200
    assert message(body).isprintable()
    assert shown(url).isprintable()


def caused(error: Exception, cause: BaseException) -> Exception:
    """Returns an error of urllib3 with a cause."""
    error.__cause__ = cause
    return error


def protocol(cause: Exception) -> Exception:
    """Builds urllib3's error for a broken connection."""
    return caused(urllib3.exceptions.ProtocolError("Connection broken", cause), cause)


def connecting(cause: Exception) -> Exception:
    """Builds urllib3's error for a failed connection."""
    new = urllib3.exceptions.NewConnectionError(None, f"Failed: {cause}")  # type: ignore[arg-type]
    return caused(new, cause)


@pytest.mark.parametrize(
    ("error", "first", "later"),
    [
        (protocol(ConnectionResetError(errno.ECONNRESET, "reset")), True, True),
        (protocol(http.client.RemoteDisconnected("closed")), True, True),
        (protocol(http.client.IncompleteRead(b"", 3)), True, True),
        (protocol(http.client.BadStatusLine("garbage")), False, False),
        (connecting(socket.gaierror(socket.EAI_AGAIN, "try again")), True, True),
        (connecting(socket.gaierror(socket.EAI_NONAME, "unknown")), False, False),
        (connecting(ConnectionRefusedError(errno.ECONNREFUSED, "refused")), False, True),
        (connecting(OSError(errno.EHOSTUNREACH, "no route")), False, True),
        (urllib3.exceptions.ConnectTimeoutError(None, "slow"), False, True),
        (caused(urllib3.exceptions.SSLError(ssl.SSLError("x")), ssl.SSLError("x")), False, False),
        (urllib3.exceptions.InvalidChunkLength(urllib3.HTTPResponse(), b"zz"), False, False),
        (
            urllib3.exceptions.ProxyError("p", OSError("Tunnel connection failed: 503 Busy")),
            True,
            True,
        ),
        (
            urllib3.exceptions.ProxyError("p", OSError("Tunnel connection failed: 407 Account")),
            False,
            False,
        ),
    ],
)
def test_what_time_may_heal_is_told_from_the_rest(
    error: Exception, *, first: bool, later: bool
) -> None:
    for comes_back, transient in ((False, first), (True, later)):
        found = errors.away("r.example", URL, error, PROXY, comes_back=comes_back)
        assert isinstance(found, Transient) is transient
        assert "through proxy http://proxy.example:3128" in found.brief
