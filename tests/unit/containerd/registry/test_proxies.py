"""The proxy for a URL, by the rules of Go programs for the environment."""

from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerd.registry.proxies import Proxies
from proto.errors import Code, DriverError

PROXY = "http://proxy.example:3128"


def way(url: str, **variables: str) -> str:
    """Returns the URL of the proxy; empty without a proxy."""
    found = Proxies(variables).of(url)
    return found.url if found else ""


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
def test_each_scheme_has_its_variable_in_either_case(name: str) -> None:
    assert way("https://r.example/v2/", **{name: PROXY}) == PROXY
    assert way("http://r.example/v2/", **{name: PROXY}) == ""
    assert way("http://r.example/v2/", **{name.replace("S", "").replace("s_", "_"): PROXY}) == PROXY


def test_capitals_come_first_and_an_empty_value_is_none() -> None:
    assert way("https://r.example", HTTPS_PROXY=PROXY, https_proxy="http://other:1") == PROXY
    assert way("https://r.example", HTTPS_PROXY="", https_proxy=PROXY) == PROXY
    assert way("https://r.example", HTTPS_PROXY="", ALL_PROXY=PROXY) == ""
    assert way("https://r.example") == ""


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://proxy.example:3128", "http://proxy.example:3128"),
        ("http://proxy.example:3128/", "http://proxy.example:3128"),
        ("http://proxy.example", "http://proxy.example:80"),
        ("https://proxy.example", "https://proxy.example:443"),
        ("HTTP://proxy.example", "http://proxy.example:80"),
        ("proxy.example:3128", "http://proxy.example:3128"),
        ("proxy.example", "http://proxy.example:80"),
        ("10.0.0.1:3128", "http://10.0.0.1:3128"),
        ("http://[fd00::1]:3128", "http://[fd00::1]:3128"),
        ("[fd00::1]:3128", "http://[fd00::1]:3128"),
        ("user:pw@proxy.example:3128", "http://proxy.example:3128"),
        ("http://localhost:3128", "http://localhost:3128"),
    ],
)
def test_a_proxy_is_named_in_every_form_that_go_takes(text: str, url: str) -> None:
    assert way("https://r.example", HTTPS_PROXY=text) == url


@pytest.mark.parametrize(
    ("account", "pair"),
    [
        ("user:pass", "user:pass"),
        ("user", "user:"),
        ("user:", "user:"),
        ("dom%5Cuser:p%40ss%3Aw%2Frd", "dom\\user:p@ss:w/rd"),
        ("%C3%BCser:p%C3%A4ss", "üser:päss"),
    ],
)
def test_the_proxys_password_is_unquoted_and_never_shown(account: str, pair: str) -> None:
    proxy = Proxies({"HTTPS_PROXY": f"http://{account}@proxy.example:3128"}).of("https://r.example")
    assert proxy is not None
    assert proxy.authorization == f"Basic {base64.b64encode(pair.encode()).decode()}"
    assert proxy.authorization not in repr(proxy)
    assert proxy.url == "http://proxy.example:3128"


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/",
        "http://localhost:5000/",
        "http://LOCALHOST:5000/",
        "https://127.0.0.1/",
        "https://127.9.8.7:5000/",
        "https://[::1]:5000/",
        "https://[::ffff:127.0.0.1]:5000/",
    ],
)
def test_this_machine_is_asked_directly(url: str) -> None:
    assert way(url, HTTP_PROXY=PROXY, HTTPS_PROXY=PROXY) == ""


@pytest.mark.parametrize(
    ("exceptions", "url", "direct"),
    [
        ("r.example", "https://r.example/", True),
        ("r.example", "https://R.Example/", True),
        ("R.EXAMPLE", "https://r.example/", True),
        ("r.example", "https://sub.r.example/", True),
        ("r.example", "https://other.example/", False),
        ("r.example", "https://notr.example/", False),
        (".r.example", "https://sub.r.example/", True),
        (".r.example", "https://r.example/", False),
        ("*.r.example", "https://sub.r.example/", True),
        ("*.r.example", "https://r.example/", False),
        ("r.example.", "https://r.example/", True),
        ("r.example", "https://r.example./", True),
        ("example", "https://r.example/", True),
        ("r.example:5000", "https://r.example:5000/", True),
        ("r.example:5000", "https://r.example/", False),
        ("r.example:443", "https://r.example/", True),
        ("r.example:80", "http://r.example/", True),
        (".r.example:5000", "https://a.r.example:5000/", True),
        ("a.example, r.example", "https://r.example/", True),
        (" , ,r.example", "https://r.example/", True),
        ("a.example r.example", "https://r.example/", False),
        ("*", "https://anything.example/", True),
        ("a.example,*", "https://10.1.2.3/", True),
        ("10.1.2.3", "https://10.1.2.3/", True),
        ("10.1.2.3", "https://10.1.2.4/", False),
        ("10.1.2.3:5000", "https://10.1.2.3:5000/", True),
        ("10.1.2.3:5000", "https://10.1.2.3/", False),
        ("10.0.0.0/8", "https://10.1.2.3:5000/", True),
        ("10.1.2.3/8", "https://10.200.0.1/", True),
        ("10.0.0.0/8", "https://11.1.2.3/", False),
        ("10.0.0.0/8", "https://r.example/", False),
        ("fd00::/8", "https://[fd00::1]/", True),
        ("fd00::1", "https://[fd00::1]/", True),
        ("[fd00::1]:5000", "https://[fd00::1]:5000/", True),
        ("[fd00::1]:5000", "https://[fd00::1]/", False),
        ("::/0", "https://10.1.2.3/", False),
        ("nonsense/99", "https://r.example/", False),
        (":5000", "https://r.example:5000/", False),
        ("bücher.example", "https://xn--bcher-kva.example/", True),
        ("", "https://r.example/", False),
    ],
)
def test_no_proxy_has_hosts_domains_ports_and_networks(
    exceptions: str, url: str, *, direct: bool
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        found = way(url, HTTP_PROXY=PROXY, HTTPS_PROXY=PROXY, **{name: exceptions})
        assert found == ("" if direct else PROXY)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("socks5://user:hush@proxy.example:1080", "the driver does not support socks5 proxies"),
        ("ftp://proxy.example", "the driver does not support ftp proxies"),
        ("http://user:hu#sh@proxy.example:3128", "the value is no URL"),
        ("http://proxy.example:hush", "the value is no URL"),
        ("http://[hush", "the value is no URL"),
        ("http://", "the value is no URL"),
        ("http://proxy hush:80", "the value is no URL"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused_by_its_variable(text: str, why: str) -> None:
    proxies = Proxies({"https_proxy": text})
    with pytest.raises(DriverError, match="the proxy in https_proxy cannot") as caught:
        proxies.of("https://r.example")
    assert caught.value.details == why
    assert caught.value.code is Code.INVALID
    assert "hush" not in str(caught.value)
    assert proxies.of("https://localhost:5000") is None


def test_what_is_told_has_no_password() -> None:
    account = "http://user:hush@proxy.example:3128"
    told = list(Proxies({"HTTPS_PROXY": account, "http_proxy": PROXY}).sentences())
    assert told == [f"http through {PROXY}", f"https through {PROXY}, with a user"]


@given(st.text(), st.text())
def test_no_value_upsets_the_question(proxy: str, exceptions: str) -> None:
    with contextlib.suppress(DriverError):
        Proxies({"HTTPS_PROXY": proxy, "NO_PROXY": exceptions}).of("https://r.example:5000/x")
