"""Tests of pulls through environment proxies: real pullers, TLS registries, no name server.

Only the proxy knows the address of r.example: arriving requests have passed the proxy.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proto.errors import Code, DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.plugin.driver import Driver
from tests.support.plugin.plugin_dir import ROOT
from tests.support.registries import certificates, images
from tests.support.registries.certificates import Certificate
from tests.support.registries.http_proxy import HttpProxy
from tests.support.registries.image_store import Images, own_server
from tests.support.registries.images import Image
from tests.support.registries.ports import free_port
from tests.support.registries.recording_server import Answer, Request
from tests.support.registries.registry import Registry
from tests.support.registries.scripted_registry import ScriptedRegistry
from tests.support.waiting import wait_until

pytestmark = pytest.mark.containerd

NAMES = "DNS:localhost, DNS:r.example, IP:127.0.0.1"


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Makes a CA that only hosts files trust."""
    return certificates.authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def served(ca: Certificate) -> Iterator[Registry]:
    """Yields a registry with TLS whose certificate also covers r.example."""
    server = certificates.signed(ca.file.parent, "r.example", ca, NAMES)
    with Registry(certificate=(server.file, server.key)) as running:
        yield running


def pushed(registry: Registry, ca: Certificate, name: str) -> Image:
    """Pushes a fresh image to the registry."""
    image = images.build([images.layer({"hello": os.urandom(300_000)})])
    images.push(
        registry.host, name, "1", image, tls=ssl.create_default_context(cafile=str(ca.file))
    )
    return image


def store_with(
    containerd: ContainerdDaemon, directory: Path, ca: Certificate, **variables: str
) -> Images:
    """Images by these variables of the agent's environment; r.example has TLS by our CA."""
    store = Images(containerd, directory, proxies=variables)
    store.hosts_file("r.example", f'ca = "{ca.file}"')
    return store


def test_a_registry_that_only_the_proxy_reaches_is_pulled_from(
    containerd: ContainerdDaemon, tmp_path: Path, ca: Certificate, served: Registry
) -> None:
    image = pushed(served, ca, "proxied")
    with HttpProxy("user:p@ss", routes={"r.example:443": served.host}) as proxy:
        store = store_with(containerd, tmp_path, ca, HTTPS_PROXY=f"http://user:p%40ss@{proxy.host}")
        assert store.get("r.example/proxied:1").digest == image.digest
        assert {line.rpartition(" ")[0] for line in proxy.asked} == {"CONNECT r.example:443"}


def listens(port: int) -> bool:
    """Tells whether a process accepts connections at the address."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_real_proxy_is_pulled_through(containerd: ContainerdDaemon, tmp_path: Path) -> None:
    if shutil.which("tinyproxy") is None:
        pytest.skip("tinyproxy is not installed")
    image = images.build([images.layer({"hello": os.urandom(1000)})])
    port = free_port()
    config = tmp_path / "tinyproxy.conf"
    log = tmp_path / "tinyproxy.log"
    config.write_text(
        f'Port {port}\nListen 127.0.0.1\nTimeout 60\nLogFile "{log}"\nLogLevel Connect\n'
        "BasicAuth user hush\n"
    )
    # r.example is an address here: a real proxy needs a real name, and loopback takes none.
    own = f"198.18.{secrets.randbelow(256)}.{1 + secrets.randbelow(254)}"
    subprocess.run(["ip", "addr", "add", f"{own}/32", "dev", "lo"], check=True)
    real = subprocess.Popen(
        ["tinyproxy", "-d", "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: listens(port), 10, "tinyproxy does not listen")
        with ScriptedRegistry(image, address=own) as registry:
            proxies = {"http_proxy": f"http://user:hush@127.0.0.1:{port}"}
            store = Images(containerd, tmp_path, proxies=proxies)
            store.hosts_file("r.example", f'server = "http://{registry.host}"')
            assert store.get("r.example/real:1").digest == image.digest
        assert registry.host in log.read_text()
    finally:
        real.terminate()
        real.wait()
        subprocess.run(["ip", "addr", "del", f"{own}/32", "dev", "lo"], check=True)


def test_a_proxy_with_tls_is_spoken_to_inside_of_it(
    containerd: ContainerdDaemon,
    tmp_path: Path,
    ca: Certificate,
    served: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = pushed(served, ca, "double")
    monkeypatch.setattr("actors.processes.child_process.BASE_ENVIRONMENT", trusting(ca))
    own = certificates.signed(ca.file.parent, "proxy", ca)
    with (
        own_server(),
        HttpProxy("u:p", routes={"r.example:443": served.host}, certificate=own) as proxy,
    ):
        for n, name in enumerate((proxy.host, proxy.host.replace("127.0.0.1", "localhost"))):
            store = store_with(containerd, tmp_path / str(n), ca, https_proxy=f"https://u:p@{name}")
            assert store.get("r.example/double:1", force_pull=True).digest == image.digest
        assert {line.rpartition(" ")[0] for line in proxy.asked} == {"CONNECT r.example:443"}


def test_a_proxy_whose_certificate_nobody_vouches_for_gets_no_password(
    containerd: ContainerdDaemon, tmp_path: Path, ca: Certificate
) -> None:
    own = certificates.signed(ca.file.parent, "evil", ca)
    with HttpProxy(certificate=own) as proxy:
        store = store_with(containerd, tmp_path, ca, HTTPS_PROXY=f"https://u:hush@{proxy.host}")
        store.hosts_file("r.example", "skip_verify = true")
        with pytest.raises(DriverError, match="cannot be read through proxy") as caught:
            store.get("r.example/x:1")
        assert proxy.asked == []
    assert "hush" not in str(caught.value)


def trusting(ca: Certificate) -> dict[str, str]:
    """Builds a puller's environment in which OpenSSL knows the CA."""
    return {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "SSL_CERT_FILE": str(ca.file)}


def test_a_plain_registry_is_asked_through_http_proxy(
    containerd: ContainerdDaemon, tmp_path: Path
) -> None:
    image = images.build([images.layer({"hello": os.urandom(1000)})])
    with (
        ScriptedRegistry(image) as registry,
        HttpProxy("user:hush", routes={"r.example:5000": registry.host}) as proxy,
    ):
        store = Images(containerd, tmp_path, proxies={"http_proxy": f"user:hush@{proxy.host}"})
        store.hosts_file("r.example:5000", 'server = "http://r.example:5000"')
        assert store.get("r.example:5000/plain:1").digest == image.digest
        assert proxy.asked[0] == "GET http://r.example:5000/v2/plain/manifests/1 HTTP/1.1"
    assert "hush" not in registry.seen()
    assert "dXNlcjpodXNo" not in registry.seen()


@pytest.mark.parametrize(
    ("exceptions", "proxied"),
    [("r.example", False), (".example", False), ("*", False), ("r.example:5000", True), ("", True)],
)
def test_no_proxy_is_asked_directly(
    containerd: ContainerdDaemon,
    tmp_path: Path,
    ca: Certificate,
    served: Registry,
    exceptions: str,
    *,
    proxied: bool,
) -> None:
    image = pushed(served, ca, "excepted")
    with HttpProxy(routes={"r.example:443": served.host}) as proxy:
        store = store_with(
            containerd, tmp_path, ca, HTTPS_PROXY=f"http://{proxy.host}", NO_PROXY=exceptions
        )
        if proxied:
            assert store.get("r.example/excepted:1", force_pull=True).digest == image.digest
        else:
            # Only the proxy knows the name.
            with pytest.raises(DriverError, match="cannot be read") as caught:
                store.get("r.example/excepted:1", force_pull=True, image_pull_timeout_s=2.0)
            assert "proxy" not in str(caught.value)
        assert bool(proxy.asked) is proxied


def test_loopback_never_goes_through_a_proxy(containerd: ContainerdDaemon, tmp_path: Path) -> None:
    image = images.build([images.layer({"hello": os.urandom(1000)})])
    with ScriptedRegistry(image) as registry, HttpProxy() as proxy:
        proxies = {"HTTP_PROXY": f"http://{proxy.host}", "HTTPS_PROXY": f"http://{proxy.host}"}
        store = Images(containerd, tmp_path, proxies=proxies)
        assert store.get(f"{registry.host}/near:1").digest == image.digest
        assert proxy.asked == []


@pytest.mark.parametrize(
    ("options", "words", "advice"),
    [
        ({"account": "user:right"}, "407", "correct the user and password of HTTPS_PROXY"),
        ({"refusal": "403 Filtered"}, "403", "allow the registry's host in the proxy"),
    ],
)
def test_a_proxy_that_refuses_is_named_without_its_password_and_asked_once(
    containerd: ContainerdDaemon,
    tmp_path: Path,
    ca: Certificate,
    options: dict[str, Any],
    words: str,
    advice: str,
) -> None:
    with HttpProxy(**options) as proxy:
        store = store_with(containerd, tmp_path, ca, HTTPS_PROXY=f"http://user:hush@{proxy.host}")
        with pytest.raises(DriverError) as caught:
            store.get("r.example/x:1")
        assert len(proxy.asked) == 1
    text = str(caught.value)
    assert f"registry r.example cannot be read through proxy http://{proxy.host}" in text
    assert words in text
    assert advice in text
    assert "hush" not in text
    assert not caught.value.recoverable


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"account": "user:right"}, "status 407, the proxy refuses the user or password"),
        ({"refusal": "403 Filtered"}, "asked through proxy http://"),
    ],
)
def test_a_proxy_that_refuses_a_plain_registry_is_named(
    containerd: ContainerdDaemon, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with HttpProxy(**options) as proxy:
        variables = {"HTTP_PROXY": f"http://user:hush@{proxy.host}"}
        store = Images(containerd, tmp_path, proxies=variables)
        store.hosts_file("r.example", 'server = "http://r.example"')
        with pytest.raises(DriverError) as caught:
            store.get("r.example/x:1")
        assert len(proxy.asked) == 1
    assert words in caught.value.details
    assert proxy.host in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_proxy_that_is_away_is_named(
    containerd: ContainerdDaemon, tmp_path: Path, ca: Certificate
) -> None:
    away = f"127.0.0.1:{free_port()}"
    store = store_with(containerd, tmp_path, ca, HTTPS_PROXY=f"http://user:hush@{away}")
    with pytest.raises(DriverError, match=f"through proxy http://{away}: ") as caught:
        store.get("r.example/x:1")
    assert "Connection refused" in caught.value.details
    assert "check the proxy in HTTPS_PROXY of the agent's environment" in caught.value.resolution
    assert caught.value.recoverable


def test_a_proxy_that_is_busy_is_asked_again(
    containerd: ContainerdDaemon, tmp_path: Path, ca: Certificate
) -> None:
    with HttpProxy(refusal="503 Busy") as proxy:
        store = store_with(containerd, tmp_path, ca, HTTPS_PROXY=f"http://{proxy.host}")
        with pytest.raises(DriverError, match="through proxy") as caught:
            store.get("r.example/x:1", image_pull_timeout_s=3.0)
        assert len(proxy.asked) > 1
    assert caught.value.recoverable
    assert [event for event in store.events if "the pull goes on in" in event]


def test_a_proxy_of_another_kind_is_refused_before_anything_is_asked(
    containerd: ContainerdDaemon, tmp_path: Path, ca: Certificate
) -> None:
    store = store_with(containerd, tmp_path, ca, HTTPS_PROXY="socks5://user:hush@127.0.0.1:1080")
    with pytest.raises(DriverError, match="the proxy in HTTPS_PROXY cannot") as caught:
        store.get("r.example/x:1")
    assert caught.value.code is Code.INVALID
    assert "the driver does not support socks5 proxies" in caught.value.details
    assert "hush" not in str(caught.value)


def test_a_run_hands_its_proxy_down_and_no_process_shows_the_password(
    containerd: ContainerdDaemon, driver: Driver, tmp_path: Path
) -> None:
    image = images.build([images.busybox_layer({"fresh": os.urandom(1000)})])
    shown: list[str] = []

    def rule(_: Request, honest: Answer) -> Answer:
        shown.extend(pullers())
        return honest

    with (
        ScriptedRegistry(image, rule) as registry,
        HttpProxy("user:hush", routes={"r.example:5000": registry.host}) as proxy,
    ):
        hosts = tmp_path / "hosts" / "r.example:5000" / "hosts.toml"
        hosts.parent.mkdir(parents=True)
        hosts.write_text('server = "http://r.example:5000"')
        job = tmp_path / "job.json"
        config = {"image": "r.example:5000/run:1", "command": "echo", "args": ["through it"]}
        task = {"Name": "t", "Driver": "containerd-driver", "Config": config}
        job.write_text(
            json.dumps({"ID": "j", "Type": "batch", "TaskGroups": [{"Name": "g", "Tasks": [task]}]})
        )
        done = subprocess.run(
            [
                *(sys.executable, "-I", str(ROOT / "plugin/main.py"), "run", str(job)),
                *("--alloc-dir", str(driver.alloc_root)),
                *("--config", f"containerd_address={containerd.address}"),
                *("--config", f"containerd_namespace={containerd.namespace}"),
                *("--config", f"state_dir={driver.state_dir}"),
                *("--config", f"registry_config_path={tmp_path / 'hosts'}"),
            ],
            env={**os.environ, "http_proxy": f"http://user:hush@{proxy.host}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "through it" in said
    assert proxy.asked
    assert "hush" not in said
    assert shown
    assert not [text for text in shown if "hush" in text]


def pullers() -> list[str]:
    """Returns arguments and environment of every running puller."""
    found: list[str] = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_text(errors="replace")
            if "puller.py" in line:
                found.append(line + (entry / "environ").read_text(errors="replace"))
    return found
