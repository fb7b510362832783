"""Tests of registries that send garbage, lie, stop half-way or never end: clear errors in time."""

from __future__ import annotations

import itertools
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.images import pullers
from containerd.api import features
from proto.errors import Code, DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.registries import images
from tests.support.registries.image_store import Images
from tests.support.registries.images import Image, digest_of
from tests.support.registries.raw_server import RawServer, Reply
from tests.support.waiting import wait_until

pytestmark = pytest.mark.containerd

OK = b"HTTP/1.1 200 OK\r\n"
ELSEWHERE = "192.0.2.1"  # without an owner; any request there is a defect


def ok(body: bytes, headers: bytes = b"") -> list[bytes]:
    """Builds an honest answer."""
    return [b"%s%sContent-Length: %d\r\n\r\n%s" % (OK, headers, len(body), body)]


def fresh_image(size: int = 100_000) -> Image:
    """Builds an image that containerd has never seen."""
    return images.build([images.layer({"hello": os.urandom(size)})])


def with_layer(image: Image, **fields: Any) -> Image:
    """Changes the manifest's fields about the image's layer."""
    manifest = json.loads(image.body)
    manifest["layers"][0].update(fields)
    image.body = json.dumps(manifest).encode()
    return image


def layer_of(image: Image) -> str:
    """Returns the digest of the image's layer."""
    return str(json.loads(image.body)["layers"][0]["digest"])


def manifests(reply: Callable[[], Iterable[bytes]], image: Image | None = None) -> Reply:
    """Builds a registry that is honest except for the manifest."""
    blobs = image.blobs if image else {}

    def answer(path: str) -> Iterable[bytes]:
        return reply() if "/manifests/" in path else ok(blobs[path.rpartition("/")[2]])

    return answer


def serving(image: Image, layer: Callable[[], Iterable[bytes]] | None = None) -> Reply:
    """Builds a registry that is honest except for the layer."""

    def answer(path: str) -> Iterable[bytes]:
        digest = path.rpartition("/")[2]
        if "/manifests/" in path:
            return ok(image.body, b"Content-Type: %s\r\n" % images.MANIFEST.encode())
        return layer() if layer and digest == layer_of(image) else ok(image.blobs[digest])

    return answer


@pytest.fixture
def store(containerd: ContainerdDaemon, tmp_path: Path) -> Iterator[Images]:
    """Yields images, and checks that a failed pull left no lease and no image name."""
    names = containerd.ctr("images", "list", "-q")
    yield Images(containerd, tmp_path)
    assert containerd.ctr("leases", "list", "-q") == ""
    assert containerd.ctr("images", "list", "-q") == names


def refusal(store: Images, reply: Reply, **options: Any) -> DriverError:
    """Returns the error of a pull: a sentence, and no defect of the puller.

    Retries of cut connections would take half a minute; a short pull timeout avoids the wait.
    """
    options = {"image_pull_timeout_s": 3.0, **options}
    with RawServer(reply) as server, pytest.raises(DriverError) as caught:
        store.get(f"{server.host}/x:1", **options)
    assert "internal error of the puller" not in str(caught.value)
    assert "without an answer" not in str(caught.value)
    return caught.value


ANSWERS: dict[str, list[bytes]] = {
    "nothing": [],
    "garbage": [b"\0\xff\xfe garbage\r\n\r\n"],
    "another protocol": [b"SSH-2.0-OpenSSH_9\r\n"],
    "no status": [b"HTTP/1.1 abc OK\r\n\r\n"],
    "a status of its own": [b"HTTP/1.1 999 OK\r\nContent-Length: 3\r\n\r\nabc"],
    "a header without end": [b"%sX: " % OK, *[b"a" * 65536] * 4],
    "headers without end": [OK, *[b"X: a\r\n" * 100] * 4],
    "two lengths": [b"%sContent-Length: 3, 4\r\n\r\nabcd" % OK],
    "less than it says": [b"%sContent-Length: 9\r\n\r\nabc" % OK],
    "a chunk that is none": [b"%sTransfer-Encoding: chunked\r\n\r\nzz\r\nabc" % OK],
    "a negative chunk": [b"%sTransfer-Encoding: chunked\r\n\r\n-5\r\nabc" % OK],
    "a chunk beyond all": [b"%sTransfer-Encoding: chunked\r\n\r\n%s\r\nabc" % (OK, b"f" * 5000)],
    "continue for ever": [b"HTTP/1.1 100 Continue\r\n\r\n" * 200],
    "a redirect to a file": [b"HTTP/1.1 307 X\r\nLocation: file:///etc/passwd\r\n\r\n"],
    "a redirect to no port": [b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:99999/\r\n\r\n"],
    "a redirect to no host": [b"HTTP/1.1 307 X\r\nLocation: https://a..b/\r\n\r\n"],
    "a redirect to a broken address": [b"HTTP/1.1 307 X\r\nLocation: http://[::1\r\n\r\n"],
    "a redirect in no language": [b"HTTP/1.1 307 X\r\nLocation: https://\xff\xfe/\r\n\r\n"],
    "an error with controls": [b"HTTP/1.1 500 X\r\nContent-Length: 7\r\n\r\n\x1b[0m\0\n\r"],
    "a challenge of garbage": [b'HTTP/1.1 401 X\r\nWWW-Authenticate: \xff="",,= Bearer\r\n\r\n'],
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_that_is_none_is_a_sentence(store: Images, kind: str) -> None:
    error = refusal(store, lambda _: ANSWERS[kind])
    assert error.code in {Code.UNAVAILABLE, Code.DENIED}
    assert str(error).isprintable()
    assert "Error in pulling image" in str(error)


def test_a_manifest_without_end_is_read_to_its_limit_only(store: Images) -> None:
    def endless() -> Iterable[bytes]:
        return itertools.chain([b"%s\r\n" % OK], itertools.repeat(b" " * 65536))

    with RawServer(manifests(endless)) as server:
        with pytest.raises(DriverError, match="an answer that is too large"):
            store.get(f"{server.host}/x:1")
        # The sockets' buffers hold more.
        assert server.sent < 64 * 1024 * 1024


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"html", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"[" * 100_000, "not JSON"),
        (b'{"config": {"size": %s}}' % (b"9" * 5000), "not JSON"),
        (b'{"config": {"digest": "sha256:..", "size": 1}}', "is not a digest"),
        (b'{"config": {"digest": "sha256:%s", "size": -1}}' % (b"0" * 64), "no digest or size"),
        (b'{"config": {"digest": "sha256:%s", "size": true}}' % (b"0" * 64), "no digest or size"),
        (b'{"config": {"digest": "sha256:%s", "size": 1e9}}' % (b"0" * 64), "no digest or size"),
        (b'{"config": {"digest": "sha256:%s", "size": 1}}' % (b"0" * 64), "has no layers"),
        (b'{"schemaVersion": 1, "config": {}}', "old schema 1"),
    ],
)
def test_a_manifest_that_is_none_is_a_damaged_image(store: Images, body: bytes, words: str) -> None:
    error = refusal(store, manifests(lambda: ok(body)))
    assert words in str(error)
    assert error.code in {Code.CORRUPT, Code.UNSUPPORTED}
    assert not error.recoverable


def test_a_hundred_thousand_layers_are_refused_before_one_is_fetched(store: Images) -> None:
    digest = "sha256:" + "0" * 64
    body = json.dumps(
        {
            "config": {"digest": digest, "size": 1},
            "layers": [{"digest": f"sha256:{n:064x}", "size": 1} for n in range(40_000)],
        }
    ).encode()
    with RawServer(manifests(lambda: ok(body))) as server:
        with pytest.raises(DriverError, match=r"too many layers|too large"):
            store.get(f"{server.host}/x:1")
        assert not any("/blobs/" in path for path in server.paths)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"size": 10}, "more than the expected 10 bytes"),
        ({"size": 0}, "more than the expected 0 bytes"),
        ({"size": 1 << 49}, f" of {1 << 49} bytes"),
        ({"size": 1 << 63}, "no disk can hold"),
        ({"mediaType": "\ud800"}, "is not an image: an artifact of type"),
        ({"mediaType": "application/vnd.oci.image.layer.v1.tar+xz"}, "cannot be unpacked"),
    ],
)
def test_a_manifest_that_lies_about_its_layer_is_found_out(
    store: Images, fields: dict[str, Any], words: str
) -> None:
    error = refusal(store, serving(with_layer(fresh_image(), **fields)))
    assert words in str(error)


def test_other_content_than_the_digest_is_found_out(store: Images) -> None:
    image = fresh_image()
    lie = ok(b"z" * len(image.blobs[layer_of(image)]))
    error = refusal(store, serving(image, lambda: lie))
    assert "sent other content than sha256:" in str(error)
    assert error.code is Code.CORRUPT


def test_a_layer_without_end_is_read_to_its_size_only(store: Images) -> None:
    def endless() -> Iterable[bytes]:
        return itertools.chain([b"%s\r\n" % OK], itertools.repeat(b" " * 65536))

    with RawServer(serving(fresh_image(), endless)) as server:
        with pytest.raises(DriverError, match=r"more than the expected [0-9]* bytes"):
            store.get(f"{server.host}/x:1")
        assert server.sent < 64 * 1024 * 1024


def test_a_layer_that_ends_half_way_may_be_tried_again(store: Images) -> None:
    image = fresh_image()
    (whole,) = ok(image.blobs[layer_of(image)])
    assert refusal(store, serving(image, lambda: [whole[:-100]])).recoverable


def test_a_layer_that_is_no_archive_or_another_one_is_refused(store: Images) -> None:
    image = images.build([os.urandom(5000)])
    assert "cannot unpack layer" in str(refusal(store, serving(image)))
    image = fresh_image()
    manifest = json.loads(image.body)
    config = json.loads(image.blobs[manifest["config"]["digest"]])
    config["rootfs"]["diff_ids"] = ["sha256:" + "1" * 64]
    body = json.dumps(config).encode()
    image.blobs[digest_of(body)] = body
    manifest["config"] |= {"digest": digest_of(body), "size": len(body)}
    image.body = json.dumps(manifest).encode()
    assert "does not match the image's config" in str(refusal(store, serving(image)))


def slowly(pieces: Iterable[bytes], server: list[RawServer]) -> Iterator[bytes]:
    for piece in pieces:
        yield piece
        server[0].pause(0.2)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("where", ["nothing", "head", "manifest", "layer"])
def test_a_registry_that_drips_is_given_up_when_the_pulls_time_is_over(
    containerd: ContainerdDaemon, store: Images, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pullers, "_GRACE_S", 1.0)
    image = fresh_image()
    dripping: list[RawServer] = []
    drops = itertools.repeat(b"a")
    start = b"%sContent-Length: 100000\r\n\r\n" % OK
    replies: dict[str, Reply] = {
        "nothing": lambda _: slowly(itertools.repeat(b""), dripping),
        "head": lambda _: slowly(itertools.chain([b"%sX: " % OK], drops), dripping),
        "manifest": manifests(lambda: slowly(itertools.chain([start], drops), dripping)),
        "layer": serving(image, lambda: slowly(itertools.chain([start], drops), dripping)),
    }
    with RawServer(replies[where]) as server:
        dripping.append(server)
        with pytest.raises(DriverError) as caught:
            store.get(f"{server.host}/x:1", image_pull_timeout_s=1.0)
    assert caught.value.code is Code.TIMEOUT
    assert caught.value.recoverable
    assert layer_of(image) not in containerd.ctr("content", "list", "-q")
    wait_until(
        lambda: "nomad-driver" not in containerd.ctr("content", "active"),
        20,
        "what came of the layer stays on the disk",
    )


def zstd_bomb(size: int) -> bytes:
    """Builds a layer of one file of zeros, in blocks of four bytes that are 128 KiB each."""

    def block(kind: int, count: int, data: bytes, *, last: bool = False) -> bytes:
        return (int(last) | kind << 1 | count << 3).to_bytes(3, "little") + data

    info = tarfile.TarInfo("zeros")
    info.size = size
    head = info.tobuf(tarfile.GNU_FORMAT)
    zeros = block(1, 128 * 1024, b"\0") * (size // (128 * 1024))
    frame = b"\x28\xb5\x2f\xfd\0\x38"
    return frame + block(0, len(head), head) + zeros + block(1, 1024, b"\0", last=True)


@pytest.mark.timeout(60)
def test_s19_a_bomb_ends_with_the_pulls_time_and_leaves_the_disk(
    containerd: ContainerdDaemon, store: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unpacks a hundred kilobytes that would fill gigabytes, until the time is over."""
    if not features.of(containerd.version)[features.ZSTD]:
        pytest.skip(f"containerd {containerd.version} refuses layers compressed with zstd")
    monkeypatch.setattr(pullers, "_GRACE_S", 0.5)
    body = zstd_bomb(4 << 30)
    image = fresh_image()
    kind = "application/vnd.oci.image.layer.v1.tar+zstd"
    with_layer(image, mediaType=kind, digest=digest_of(body), size=len(body))
    image.blobs[digest_of(body)] = body
    with RawServer(serving(image)) as server, pytest.raises(DriverError) as caught:
        store.get(f"{server.host}/x:1", image_pull_timeout_s=0.5)
    assert caught.value.code is Code.TIMEOUT
    wait_until(lambda: "Active" not in containerd.ctr("snapshots", "list"), 20)
    # The packed layer is kept for another try; the unpacked content is not.
    for lease in containerd.ctr("leases", "list", "-q").split():
        containerd.ctr("leases", "delete", "--sync", lease)
    assert layer_of(image) not in containerd.ctr("content", "list", "-q")


def test_s13_no_redirect_and_no_realm_leads_to_plain_text_elsewhere(store: Images) -> None:
    for head in (
        f"HTTP/1.1 307 X\r\nLocation: http://{ELSEWHERE}/latest/meta-data",
        f'HTTP/1.1 401 X\r\nWWW-Authenticate: Bearer realm="http://{ELSEWHERE}/token"',
        'HTTP/1.1 401 X\r\nWWW-Authenticate: Bearer realm="file:///etc/shadow"',
    ):
        answer = [f"{head}\r\nContent-Length: 0\r\n\r\n".encode()]
        assert refusal(store, lambda _, answer=answer: answer).code is Code.DENIED  # type: ignore[misc]
