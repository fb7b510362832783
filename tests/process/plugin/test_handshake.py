"""Tests of the plugin process as go-plugin sees the plugin: first line, socket, and end."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from plugin import environment
from proto.nomad import base_pb2, driver_pb2
from proto.release import RELEASE
from tests.support.plugin.plugin_dir import ROOT, make_plugin_dir
from tests.support.plugin.plugin_process import (
    BASE,
    DEADLINE_S,
    DRIVER,
    PluginProcess,
    make_fake_plugin,
)
from tests.support.waiting import slowed, wait_until


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Returns the product's own plugin, with the real actors."""
    return make_plugin_dir(tmp_path / "plugins")


@pytest.fixture
def plugin(program: Path) -> Iterator[PluginProcess]:
    with PluginProcess(program) as process:
        yield process


def _threads(process: int) -> list[int]:
    return [int(task.name) for task in Path(f"/proc/{process}/task").iterdir()]


def _run(program: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program), *arguments],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        timeout=slowed(DEADLINE_S),
        check=False,
    )


def test_handshake_is_one_exact_line(plugin: PluginProcess) -> None:
    assert re.fullmatch(r"1\|2\|unix\|/[\w/.-]+\|grpc\|\n", plugin.line)
    assert plugin.line.split("|")[3] == plugin.socket


def test_socket_lies_in_a_directory_of_root_alone_and_listens_already(
    plugin: PluginProcess,
) -> None:
    directory = Path(plugin.socket).parent
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert directory.stat().st_uid == os.geteuid()
    assert stat.S_ISSOCK(Path(plugin.socket).stat().st_mode)
    info = plugin.unary(BASE, "PluginInfo", base_pb2.PluginInfoRequest())
    assert info.name == "containerd-driver"


def test_shutdown_answers_then_the_process_is_gone_with_its_socket(plugin: PluginProcess) -> None:
    plugin.shut_down()
    assert plugin.child.returncode == 0
    assert not Path(plugin.socket).parent.exists()
    assert plugin.rest_of_stdout() == b""


def test_sigterm_ends_the_process_even_while_calls_wait(tmp_path: Path) -> None:
    with PluginProcess(make_fake_plugin(tmp_path)) as plugin:
        events = plugin.stream("TaskEvents")
        prints = plugin.stream("Fingerprint")
        next(iter(prints))
        plugin.child.send_signal(signal.SIGTERM)
        plugin.child.wait(slowed(DEADLINE_S))
        assert plugin.child.returncode == 0
        assert not Path(plugin.socket).parent.exists()
        # By this code Nomad distinguishes a lost plugin from an ended task.
        with pytest.raises(grpc.RpcError) as gone:
            next(iter(events))
        assert gone.value.code() is grpc.StatusCode.UNAVAILABLE


def test_sigterm_ends_the_process_whichever_of_its_threads_gets_it(plugin: PluginProcess) -> None:
    process = plugin.child.pid
    wait_until(lambda: len(_threads(process)) > 1, DEADLINE_S)
    thread = max(_threads(process))
    libc = ctypes.CDLL(None, use_errno=True)
    assert thread != process
    assert libc.tgkill(process, thread, signal.SIGTERM) == 0
    plugin.child.wait(slowed(DEADLINE_S))
    assert plugin.child.returncode == 0


def test_sigint_is_ignored(plugin: PluginProcess) -> None:
    plugin.child.send_signal(signal.SIGINT)
    plugin.unary(BASE, "PluginInfo", base_pb2.PluginInfoRequest())
    assert plugin.child.poll() is None


def test_stdout_has_nothing_after_the_handshake_and_stderr_only_records(
    plugin: PluginProcess,
) -> None:
    plugin.unary(BASE, "ConfigSchema", base_pb2.ConfigSchemaRequest())
    plugin.driver("Init")
    plugin.shut_down()
    assert plugin.rest_of_stdout() == b""
    assert [record["@level"] for record in plugin.log()] == ["info"]


def test_stdout_is_dev_null_after_the_handshake(plugin: PluginProcess) -> None:
    plugin.unary(BASE, "PluginInfo", base_pb2.PluginInfoRequest())
    assert Path(f"/proc/{plugin.child.pid}/fd/1").readlink() == Path("/dev/null")


def test_an_agent_that_is_gone_leaves_a_plugin_that_serves_on(program: Path) -> None:
    # After a crash of the agent both pipes are broken; the next agent dials the same socket.
    with PluginProcess(program, log_is_read=False) as plugin:
        assert plugin.child.stdout is not None
        plugin.child.stdout.close()
        with pytest.raises(grpc.RpcError):
            plugin.driver("StartTask")
        plugin.driver("Init")
        plugin.shut_down()
        assert plugin.child.returncode == 0


def test_the_handshake_waits_for_nothing_that_a_later_call_needs() -> None:
    show = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import plugin.main, plugin.serve,"
        " plugin.json_logging; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", show], capture_output=True, text=True, check=True
    )
    later = {
        "pykka",
        "google.protobuf",
        "msgpack",
        "tempfile",
        "actors.actor_gateway",
        "containerd",
    }
    assert not later & set(done.stdout.split())


def test_without_the_cookie_it_says_what_it_is_and_fails(program: Path) -> None:
    done = _run(program)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "started by the Nomad agent" in done.stderr
    assert "containerd-driver run JOB" in done.stderr


def test_a_wrong_cookie_is_none(program: Path) -> None:
    assert _run(program, NOMAD_PLUGIN_MAGIC_COOKIE="x").returncode == 1


def test_tls_is_refused_with_its_variable_named(program: Path) -> None:
    cookie = {environment.MAGIC_COOKIE_KEY: environment.MAGIC_COOKIE}
    done = _run(program, **cookie, PLUGIN_CLIENT_CERT="-----BEGIN CERTIFICATE-----")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "PLUGIN_CLIENT_CERT" in done.stderr


def test_version_is_printed_as_the_go_driver_did(program: Path) -> None:
    done = _run(program, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        f"containerd-driver v{RELEASE}\n",
        "",
    )


def test_unknown_arguments_show_the_usage(program: Path) -> None:
    done = _run(program, "--frobnicate")
    assert done.returncode == 2
    assert "usage:" in done.stderr


@pytest.mark.parametrize(
    "name", ["with|bar", "with%20percent", "d" * 90, "missing/directory", "with space"]
)
def test_a_temporary_directory_that_cannot_hold_the_socket_is_passed_over(
    program: Path, tmp_path: Path, name: str
) -> None:
    place = tmp_path / name
    if "missing" not in name:
        place.mkdir()
    with PluginProcess(program, TMPDIR=str(place)) as plugin:
        assert not plugin.socket.startswith(str(place))
        plugin.unary(BASE, "PluginInfo", base_pb2.PluginInfoRequest())
        plugin.shut_down()


def test_a_usable_temporary_directory_is_used(program: Path) -> None:
    with PluginProcess(program, TMPDIR="/var/tmp/") as plugin:
        assert plugin.socket.startswith("/var/tmp/nomad-cd-")
        plugin.shut_down()


def test_three_instances_serve_side_by_side(program: Path) -> None:
    with (
        PluginProcess(program) as one,
        PluginProcess(program) as two,
        PluginProcess(program) as three,
    ):
        assert len({one.socket, two.socket, three.socket}) == 3
        two.shut_down()
        for other in (one, three):
            assert other.unary(DRIVER, "Capabilities", driver_pb2.CapabilitiesRequest()).HasField(
                "capabilities"
            )


def test_a_process_killed_in_a_call_leaves_its_caller_an_unavailable_plugin(tmp_path: Path) -> None:
    with PluginProcess(make_fake_plugin(tmp_path)) as plugin:
        prints = plugin.stream("Fingerprint")
        next(iter(prints))
        plugin.child.kill()
        wait_until(lambda: plugin.child.poll() is not None, DEADLINE_S)
        with pytest.raises(grpc.RpcError) as gone:
            list(prints)
        assert gone.value.code() is grpc.StatusCode.UNAVAILABLE


def test_the_plugin_may_open_as_many_files_as_the_host_allows(
    program: Path, tmp_path: Path
) -> None:
    strict = tmp_path / "strict"
    strict.write_text(f"#!/bin/sh\nulimit -Sn 256; ulimit -Hn 4000; exec {program}\n")
    strict.chmod(0o755)
    with PluginProcess(strict) as plugin:
        limits = Path(f"/proc/{plugin.child.pid}/limits").read_text()
        assert re.search(r"^Max open files +4000 +4000 ", limits, re.MULTILINE)


def test_a_plugin_of_the_embedded_host_loads_the_driver_before_the_first_call(
    program: Path,
) -> None:
    with PluginProcess(program, CONTAINERD_DRIVER_HOST=str(os.getpid())) as plugin:
        maps = Path(f"/proc/{plugin.child.pid}/maps")
        # No module of the handshake needs protobuf, whose package has a compiled module.
        wait_until(lambda: "/google/" in maps.read_text(), DEADLINE_S)


def test_the_plugin_loads_no_http_client() -> None:
    show = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import plugin.serve, plugin.json_logging,"
        " plugin.rpc.driver_service, plugin.rpc.handlers, actors.actor_gateway; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", show], capture_output=True, text=True, check=True
    )
    assert not {"urllib3", "http.client"} & set(done.stdout.split())


def test_a_plugin_of_the_embedded_host_ends_when_that_is_killed(program: Path) -> None:
    host = subprocess.Popen(["sleep", "600"])
    try:
        with PluginProcess(program, CONTAINERD_DRIVER_HOST=str(host.pid)) as plugin:
            plugin.unary(BASE, "PluginInfo", base_pb2.PluginInfoRequest())
            host.kill()
            host.wait()
            assert plugin.child.wait(slowed(DEADLINE_S)) == 0
            assert not Path(plugin.socket).parent.exists()
    finally:
        host.kill()
        host.wait()


def test_a_plugin_whose_embedded_host_has_gone_already_does_not_stay(program: Path) -> None:
    host = subprocess.Popen(["true"])
    host.wait()
    variables = {**environment.for_plugin(), "CONTAINERD_DRIVER_HOST": str(host.pid)}
    done = _run(program, **variables)
    assert (done.returncode, done.stdout) == (0, "")
