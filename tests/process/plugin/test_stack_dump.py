"""SIGUSR1 prints stacks of plugin, launcher and workers, and each of them goes on."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from proto.nomad import base_pb2, driver_pb2
from tests.support.plugin.plugin_dir import ROOT
from tests.support.plugin.plugin_process import (
    BASE,
    DEADLINE_S,
    DRIVER,
    PluginProcess,
    checked_hclog_line,
    make_fake_plugin,
)
from tests.support.waiting import slowed, wait_until
from tests.support.workers.peers import LauncherProcess

_STUCK_PLUGIN = """\
#!{python} -I
import sys, time
sys.path.insert(0, {root!r})
from plugin import json_logging, serve
json_logging.install()
def gateway_that_never_comes():
    open({entered!r}, "w").close()
    while True:
        time.sleep(3600)
serve.run(gateway_that_never_comes)
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[PluginProcess]:
    with PluginProcess(make_fake_plugin(tmp_path)) as process:
        yield process


def _plain(plugin: PluginProcess) -> str:
    """Returns the lines of stderr, without log records."""
    return "".join(line for line in plugin.stderr_lines() if not line.startswith("{"))


def _tasks(plugin: PluginProcess) -> list[str]:
    """Returns the stacks of the asyncio tasks in the log so far."""
    records = [checked_hclog_line(x) for x in plugin.stderr_lines() if x.startswith("{")]
    assert {x["@level"] for x in records if x["@message"] == "asyncio task"} <= {"info"}
    return [str(x["stack"]) for x in records if x["@message"] == "asyncio task"]


def _serves_on(plugin: PluginProcess) -> None:
    plugin.unary(BASE, "PluginInfo", base_pb2.PluginInfoRequest())
    plugin.shut_down()
    assert plugin.child.returncode == 0
    assert plugin.rest_of_stdout() == b""


def test_the_plugin_prints_threads_and_tasks_and_serves_on(plugin: PluginProcess) -> None:
    prints = plugin.stream("Fingerprint")
    next(iter(prints))
    plugin.child.send_signal(signal.SIGUSR1)
    wait_until(lambda: any("plugin/serve.py" in stack for stack in _tasks(plugin)), DEADLINE_S)
    # The dump shows a stream's task down to the innermost coroutine, not only the outermost frame.
    assert any("base_events" not in s and s.count("\n") >= 2 for s in _tasks(plugin))
    assert "(most recent call first)" in _plain(plugin)
    assert "plugin/serve.py" in _plain(plugin)
    prints.cancel()
    _serves_on(plugin)


def test_the_plugin_prints_both_whichever_thread_gets_the_signal(plugin: PluginProcess) -> None:
    process = plugin.child.pid
    threads = Path(f"/proc/{process}/task")
    wait_until(lambda: len(list(threads.iterdir())) > 1, DEADLINE_S)
    other = max(int(thread.name) for thread in threads.iterdir())
    assert ctypes.CDLL(None).tgkill(process, other, signal.SIGUSR1) == 0
    wait_until(lambda: _tasks(plugin) and "plugin/serve.py" in _plain(plugin), DEADLINE_S)
    _serves_on(plugin)


def test_a_plugin_whose_event_loop_is_stuck_prints_where(tmp_path: Path) -> None:
    program, entered = tmp_path / "containerd-driver", tmp_path / "entered"
    program.write_text(
        _STUCK_PLUGIN.format(python=sys.executable, root=str(ROOT), entered=str(entered))
    )
    program.chmod(0o755)
    with PluginProcess(program) as plugin:
        call = plugin.unary_call(DRIVER, "Capabilities").future(driver_pb2.CapabilitiesRequest())
        wait_until(entered.exists, DEADLINE_S)
        plugin.child.send_signal(signal.SIGUSR1)
        wait_until(lambda: "gateway_that_never_comes" in _plain(plugin), DEADLINE_S)
        assert plugin.child.poll() is None
        assert _tasks(plugin) == []
        plugin.child.kill()
        with pytest.raises(grpc.RpcError):
            call.result(slowed(DEADLINE_S))


def test_an_agent_that_is_gone_makes_the_signal_no_end(tmp_path: Path) -> None:
    with PluginProcess(make_fake_plugin(tmp_path), log_is_read=False) as plugin:
        plugin.child.send_signal(signal.SIGUSR1)
        plugin.driver("Init")
        plugin.child.send_signal(signal.SIGUSR1)
        _serves_on(plugin)


def test_launcher_and_worker_print_their_stacks_into_the_launchers_log_and_go_on() -> None:
    with LauncherProcess() as launcher, launcher.worker("a") as worker:
        pid = worker.ask("hello")["pid"]
        assert isinstance(pid, int)
        os.kill(launcher.process.pid, signal.SIGUSR1)
        wait_until(lambda: "workers/launcher.py" in launcher.log.read_text(), DEADLINE_S)
        assert " in run\n" in launcher.log.read_text()
        os.kill(pid, signal.SIGUSR1)
        wait_until(lambda: "workers/loop.py" in launcher.log.read_text(), DEADLINE_S)
        assert worker.ask("hello")["pid"] == pid
        with launcher.worker("b") as other:
            assert other.ask("hello")["ok"] is True
        assert launcher.process.poll() is None


def test_a_launcher_answers_while_signals_come_all_the_time() -> None:
    with LauncherProcess() as launcher:
        done = threading.Event()

        def disturb() -> None:
            while not done.is_set():
                os.kill(launcher.process.pid, signal.SIGUSR1)

        disturber = threading.Thread(target=disturb)
        disturber.start()
        try:
            for name in ("a", "b", "c"):
                with launcher.worker(name) as worker:
                    assert worker.ask("hello")["ok"] is True
        finally:
            done.set()
            disturber.join()
