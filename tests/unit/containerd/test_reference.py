"""Image references: completed as Docker does, or refused with the reason."""

from __future__ import annotations

import contextlib
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from containerd import reference
from containerd.reference import Reference
from proto.errors import Code, DriverError

HEX = "0123456789abcdef"
DIGEST = f"sha256:{HEX * 4}"
LONG_DIGEST = f"sha512:{HEX * 8}"


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("redis", "docker.io/library/redis:latest"),
        ("redis:alpine", "docker.io/library/redis:alpine"),
        ("redis:5000", "docker.io/library/redis:5000"),
        (f"redis@{DIGEST}", f"docker.io/library/redis@{DIGEST}"),
        (f"redis:7@{DIGEST}", f"docker.io/library/redis@{DIGEST}"),
        (f"redis@{LONG_DIGEST}", f"docker.io/library/redis@{LONG_DIGEST}"),
        ("library/redis", "docker.io/library/redis:latest"),
        ("bitnami/redis:7", "docker.io/bitnami/redis:7"),
        ("a/b/c:1", "docker.io/a/b/c:1"),
        ("docker.io/redis", "docker.io/library/redis:latest"),
        ("docker.io/library/redis", "docker.io/library/redis:latest"),
        ("docker.io/bitnami/redis", "docker.io/bitnami/redis:latest"),
        ("docker.io", "docker.io/library/docker.io:latest"),
        ("index.docker.io/redis", "docker.io/library/redis:latest"),
        ("index.docker.io/bitnami/redis:1", "docker.io/bitnami/redis:1"),
        ("localhost/redis", "localhost/redis:latest"),
        ("localhost:5000/redis:1", "localhost:5000/redis:1"),
        ("127.0.0.1:5000/redis", "127.0.0.1:5000/redis:latest"),
        ("[::1]:5000/redis:1", "[::1]:5000/redis:1"),
        ("[2001:db8::1]/redis", "[2001:db8::1]/redis:latest"),
        ("quay.io/coreos/etcd:v3.5", "quay.io/coreos/etcd:v3.5"),
        ("registry:443/x", "registry:443/x:latest"),
        ("registry:65535/x", "registry:65535/x:latest"),
        ("https://quay.io/coreos/etcd:v3.5", "quay.io/coreos/etcd:v3.5"),
        ("https://redis", "docker.io/library/redis:latest"),
        (f"docker://redis:7@{DIGEST}", f"docker.io/library/redis@{DIGEST}"),
        ("docker://localhost:5000/redis:1", "localhost:5000/redis:1"),
        ("Registry/x", "Registry/x:latest"),
        ("ghcr.io/x", "ghcr.io/x:latest"),
        (
            "ex-ample.co.uk:8080/a__b/c.d/e--f_g:T_a.g-1",
            "ex-ample.co.uk:8080/a__b/c.d/e--f_g:T_a.g-1",
        ),
        (f"{HEX * 4}:1", f"docker.io/library/{HEX * 4}:1"),
    ],
)
def test_a_reference_is_completed_as_docker_completes_it(text: str, whole: str) -> None:
    assert str(reference.parse(text)) == whole


def test_the_selector_is_the_digest_before_the_tag() -> None:
    assert reference.parse("redis").selector == "latest"
    assert reference.parse("redis:7").selector == "7"
    both = reference.parse(f"redis:7@{DIGEST}")
    assert (both.selector, both.tag, both.digest) == (DIGEST, "", DIGEST)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "repository name is missing"),
        (":1", "repository name is missing"),
        ("quay.io/", "repository name is missing"),
        (f"@{DIGEST}", "repository name is missing"),
        ("redis:", "'' is not a tag"),
        ("redis:a b", "'a b' is not a tag"),
        ("redis:1\n", "is not a tag"),
        ("redis:-1", "'-1' is not a tag"),
        ("redis:1:2", "'1:2' is not a tag"),
        (f"redis:{'t' * 129}", "is not a tag"),
        ("redis@", "'' is not a sha256 or sha512 digest"),
        ("redis@sha256:abc", "'sha256:abc' is not a sha256 or sha512 digest"),
        (f"redis@{DIGEST.upper()}", "is not a sha256 or sha512 digest"),
        (f"redis@md5:{HEX * 2}", "is not a sha256 or sha512 digest"),
        (f"redis@{DIGEST}@{DIGEST}", "is not a sha256 or sha512 digest"),
        ("Redis", "'Redis': names are lower case"),
        ("quay.io/Coreos/etcd", "'Coreos': names are lower case"),
        ("a//b", "'': not a name"),
        ("/redis", "'': not a name"),
        ("a/-b", "'-b': not a name"),
        ("a/b-", "'b-': not a name"),
        ("a/b..c", "'b..c': not a name"),
        ("a/b___c", "'b___c': not a name"),
        ("a/b c", "'b c': not a name"),
        ("a/\u00e9", "not a name"),
        ("quay.io/../etcd", "'..': not a name"),
        (f"quay.io/{'a' * 256}", "longer than 255 characters"),
        ("-quay.io/etcd", "'-quay.io' is not a registry host"),
        ("quay..io/etcd", "'quay..io' is not a registry host"),
        (f"{'a.' * 150}io/etcd", "is not a registry host"),
        ("quay.io:/etcd", "'quay.io:' is not a registry host"),
        ("quay.io:port/etcd", "'quay.io:port' is not a registry host"),
        ("me:pw@quay.io/etcd", "'quay.io/etcd' is not a sha256 or sha512 digest"),
        ("http://quay.io/etcd", "'http:' is not a registry host"),
        ("https://docker://redis", "'docker:' is not a registry host"),
        (f"https://{DIGEST}", "an image id names no registry"),
        ("quay.io:0/etcd", "'quay.io:0' is not a registry host"),
        ("quay.io:65536/etcd", "'quay.io:65536' is not a registry host"),
        ("[::1]:99999/etcd", "'[::1]:99999' is not a registry host"),
        ("[::1/etcd", "'[::1' is not a registry host"),
        ("[::g]:5000/etcd", "'[::g]:5000' is not a registry host"),
    ],
)
def test_a_bad_reference_is_refused_with_what_is_wrong(text: str, why: str) -> None:
    with pytest.raises(DriverError) as refused:
        reference.parse(text)
    assert refused.value.code is Code.INVALID
    assert not refused.value.recoverable
    assert refused.value.brief == f"image {text[:200]!r} is not an image reference"
    assert why in refused.value.details
    assert "registry/name:tag" in refused.value.resolution


@pytest.mark.parametrize(
    "text",
    [
        HEX * 4,
        HEX[:12],
        f"{HEX}{HEX}",
        DIGEST,
        LONG_DIGEST,
        "sha256:ab12",
        f"SHA256:{HEX.upper() * 4}",
        f"sha256:{HEX[:12]}",
    ],
)
def test_an_images_id_is_no_reference(text: str) -> None:
    with pytest.raises(DriverError) as refused:
        reference.parse(text)
    assert refused.value.code is Code.INVALID
    assert "an image id names no registry" in refused.value.details
    assert "registry/name:tag" in refused.value.resolution


@pytest.mark.parametrize(
    "text", ["sha256", "deadbeef", "decade", "me/sha256:1", f"me/{HEX}", "sha256:latest"]
)
def test_names_that_look_a_little_like_an_id_are_names(text: str) -> None:
    assert reference.parse(text).registry == "docker.io"


_WORDS = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=10)
_COMPONENTS = st.builds(
    lambda words, between: between.join(words),
    st.lists(_WORDS, min_size=1, max_size=3),
    st.sampled_from([".", "_", "__", "-", "---"]),
)
_TAGS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", fullmatch=True).filter(str.isascii)
_HOSTS = st.builds(
    lambda labels, port: ".".join(labels) + port,
    st.lists(_WORDS, min_size=2, max_size=4),
    st.sampled_from(["", ":80", ":5000"]),
)


@given(
    host=_HOSTS, path=st.lists(_COMPONENTS, min_size=1, max_size=4), tag=_TAGS, pinned=st.booleans()
)
def test_a_whole_reference_stays_as_it_is(
    host: str, path: list[str], tag: str, *, pinned: bool
) -> None:
    end = f"@{DIGEST}" if pinned else f":{tag}"
    text = f"{host}/{'/'.join(path)}{end}"
    parsed = reference.parse(text)
    assert str(parsed) == text
    assert parsed == Reference(
        registry=host,
        repository="/".join(path),
        tag="" if pinned else tag,
        digest=DIGEST if pinned else "",
    )


@given(st.text() | st.text("aA0./:@[]-_ \n%"))
@example("[")
@example("a" * 5000)
def test_any_text_is_refused_in_words_or_completed_once_and_for_all(text: str) -> None:
    with contextlib.suppress(DriverError):
        whole = str(reference.parse(text))
        assert str(reference.parse(whole)) == whole
        assert whole.isascii()
        assert not set(whole) & set(" \n%?#\\")


@given(st.text())
def test_an_error_never_shows_more_than_a_line_of_what_it_refuses(text: str) -> None:
    with pytest.raises(DriverError) as refused:
        reference.parse(f"{text * 50} !")
    assert len(str(refused.value)) < 4000
    assert "\n" not in str(refused.value)
