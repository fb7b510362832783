"""containerd's hosts.toml: correct files, and errors for faulty files."""

from __future__ import annotations

from pathlib import Path

import pytest

from containerd.registry.hosts import Endpoint, load
from proto.errors import Code, DriverError


def write(directory: Path, name: str, text: str) -> Path:
    """Writes a hosts.toml for a registry."""
    path = directory / name / "hosts.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_without_a_file_the_registry_itself_is_asked(tmp_path: Path) -> None:
    hub = (Endpoint(host="registry-1.docker.io"),)
    assert load(str(tmp_path), "docker.io") == hub
    assert load(str(tmp_path / "none"), "docker.io") == hub
    assert load("", "r.example:5000") == (Endpoint(host="r.example:5000"),)


def test_mirrors_come_in_the_files_order_and_the_server_last(tmp_path: Path) -> None:
    write(
        tmp_path,
        "docker.io",
        """
        server = "https://docker.io"
        [host."https://z.example"]
          capabilities = ["pull", "resolve"]
        [host."http://a.example:5000"]
          capabilities = ["pull"]
        """,
    )
    first, second, last = load(str(tmp_path), "docker.io")
    assert (first.scheme, first.host, first.resolve, first.pull) == (
        "https",
        "z.example",
        True,
        True,
    )
    assert (second.scheme, second.host, second.resolve) == ("http", "a.example:5000", False)
    assert (last.host, last.namespace) == ("registry-1.docker.io", "")
    assert (first.namespace, second.namespace) == ("docker.io", "docker.io")


def test_every_key_of_a_host_is_read(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.pem"
    elsewhere.touch()
    file = write(
        tmp_path,
        "r.example",
        """
        [host."https://m.example/mirror"]
          override_path = true
          skip_verify = true
          ca = ["ca.pem", "ABSOLUTE"]
          client = [["c.cert", "c.key"], ["both.pem", ""], "one.pem"]
          [host."https://m.example/mirror".header]
            x-one = "1"
            x-two = ["2", "3"]
        [host."https://n.example/mirror"]
          ca = "ca.pem"
        """.replace("ABSOLUTE", str(elsewhere)),
    )
    for name in ("ca.pem", "c.cert", "c.key", "both.pem", "one.pem"):
        (file.parent / name).touch()
    first, second, last = load(str(tmp_path), "r.example")
    beside = file.parent
    assert first.path == "/mirror"
    assert first.skip_verify
    assert first.ca == (str(beside / "ca.pem"), str(elsewhere))
    assert first.client == (
        (str(beside / "c.cert"), str(beside / "c.key")),
        (str(beside / "both.pem"), ""),
        (str(beside / "one.pem"), ""),
    )
    assert first.headers == (("x-one", "1"), ("x-two", "2, 3"))
    assert (second.path, second.ca) == ("/mirror/v2", (str(beside / "ca.pem"),))
    assert last == Endpoint(host="r.example")


def test_keys_at_the_top_are_the_servers(tmp_path: Path) -> None:
    write(tmp_path, "r.example", 'server = "http://r.example"\nskip_verify = true\n')
    assert load(str(tmp_path), "r.example") == (
        Endpoint(host="r.example", scheme="http", skip_verify=True),
    )


def test_a_port_may_be_escaped_and_the_default_is_for_all_others(tmp_path: Path) -> None:
    write(tmp_path, "_default", '[host."https://any.example"]')
    write(tmp_path, "r.example_5000_", '[host."https://escaped.example"]')
    write(tmp_path, "r.example:5000", '[host."https://plain.example"]')
    write(tmp_path, "q.example:1", '[host."https://q-mirror.example"]')
    assert load(str(tmp_path), "r.example:5000")[0].host == "escaped.example"
    assert load(str(tmp_path), "q.example:1")[0].host == "q-mirror.example"
    mirror, itself = load(str(tmp_path), "other.example")
    assert (mirror.host, mirror.namespace) == ("any.example", "other.example")
    assert itself.host == "other.example"


def test_dockers_own_files_count_where_there_is_no_toml(tmp_path: Path) -> None:
    beside = tmp_path / "r.example"
    beside.mkdir()
    for name in ("ca.crt", "me.cert", "me.key", "alone.cert"):
        (beside / name).touch()
    assert load(str(tmp_path), "r.example") == (
        Endpoint(
            host="r.example",
            ca=(str(beside / "ca.crt"),),
            client=((str(beside / "me.cert"), str(beside / "me.key")),),
        ),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("server = ", "not TOML"),
        ("host = 5", "host: is not a table"),
        ('host."https://m.example" = 5', 'host."https://m.example": is not a table'),
        ("server = 5", "server: 5 is no URL"),
        ('server = "ftp://m.example"', "server: 'ftp://m.example' is no URL"),
        ('server = "https://u:p@m.example"', "is no URL"),
        ('[host."https://"]', "is no URL"),
        ('[host."https://m.example?x=y"]', "is no URL"),
        ('[host."m.example/a b"]', "is no URL"),
        ('[host."https://m.example"]\ncapabilities = ["pul"]', "'pul' is not a list of pull"),
        ('[host."https://m.example"]\ncapabilities = "pull"', "capabilities: 'pull' is not a list"),
        ('[host."https://m.example"]\nskip_verify = "yes"', "skip_verify: 'yes' is not true or"),
        ('[host."https://m.example"]\noverride_path = 1', "override_path: 1 is not true or false"),
        ('[host."https://m.example"]\nca = 5', "ca: 5 is not a file or a list of files"),
        ('[host."https://m.example"]\nca = "none.pem"', "ca: file"),
        ('[host."https://m.example"]\nclient = [["a", "b", "c"]]', "client: ['a', 'b', 'c'] is"),
        ('[host."https://m.example"]\nclient = 5', "client: 5 is not a file or a pair"),
        ('[host."https://m.example"]\nheader = 5', "header: is not a table"),
        (
            '[host."https://m.example".header]\n"x y" = "hush-hush"',
            "header.x y: is not a header",
        ),
        ('[host."https://m.example".header]\nx = "hush\\nhush"', "header.x: is not a header"),
        ('[host."https://m.example".header]\nx = [5]', "header.x: is not a header"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    file = write(tmp_path, "r.example", text)
    with pytest.raises(DriverError) as caught:
        load(str(tmp_path), "r.example")
    assert caught.value.code is Code.INVALID
    assert str(file) in caught.value.brief
    assert words in caught.value.brief
    assert "hush" not in str(caught.value)


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    write(tmp_path, "r.example", 'server = 5\nca = 6\n[host."ftp://x"]\nskip_verify = 7\n')
    with pytest.raises(DriverError) as caught:
        load(str(tmp_path), "r.example")
    for words in ("server: 5", "ca: 6", "'ftp://x' is no URL", "skip_verify: 7"):
        assert words in caught.value.brief


def test_a_file_without_end_or_without_text_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "r.example", "#" * (1024 * 1024 + 1))
    with pytest.raises(DriverError, match="is over 1 MiB"):
        load(str(tmp_path), "r.example")
    write(tmp_path, "r.example", "").write_bytes(b"\xff")
    with pytest.raises(DriverError, match="is not UTF-8"):
        load(str(tmp_path), "r.example")
