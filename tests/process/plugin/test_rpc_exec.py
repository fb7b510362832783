"""Tests of commands in a task, over the plugin's socket, with a gateway that runs no containers."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import grpc
import pytest

from proto.nomad import driver_pb2
from tests.support.plugin.plugin_calls import (
    started,
    text_of,
    unhurt,
)
from tests.support.plugin.plugin_process import (
    DEADLINE_S,
    PluginProcess,
    make_fake_plugin,
)
from tests.support.waiting import wait_until

Exec = driver_pb2.ExecTaskStreamingRequest


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PluginProcess]:
    """Yields one process for the whole file."""
    with unhurt(make_fake_plugin(tmp_path_factory.mktemp("fake"))) as process:
        yield process


def _setup(task_id: str, *command: str, tty: bool = False) -> Exec:
    return Exec(setup=Exec.Setup(task_id=task_id, command=list(command), tty=tty))


def test_exec_carries_streams_and_sizes_and_ends_with_the_exit_alone(
    plugin: PluginProcess,
) -> None:
    requests = [
        _setup(started(plugin, "cat"), "cat", tty=True),
        Exec(tty_size=Exec.TerminalSize(height=24, width=80)),
        Exec(tty_size=Exec.TerminalSize(height=-1, width=99_999)),
        Exec(),
        Exec(stdin={"data": b"one"}),
        Exec(stdin={"data": b"two" * 100_000}),
        Exec(stdin={"close": True}),
    ]
    answers = list(plugin.execute(iter(requests)))
    assert answers[0].stderr.data == b"True (24, 80)"
    assert b"".join(answer.stdout.data for answer in answers) == b"one" + b"two" * 100_000
    assert answers[-2].stdout.close
    last = answers[-1]
    assert last.exited
    assert last.result.exit_code == 7
    assert not last.HasField("stdout")
    assert not last.HasField("stderr")


@pytest.mark.parametrize(
    "requests",
    [[], [Exec()], [Exec(stdin={"data": b"x"})], [Exec(setup=Exec.Setup(task_id="x"))]],
    ids=["nothing", "heartbeat", "stdin", "no command"],
)
def test_exec_that_does_not_begin_with_a_setup_is_refused(
    plugin: PluginProcess, requests: list[Exec]
) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        list(plugin.execute(iter(requests)))
    assert failed.value.code() is grpc.StatusCode.UNKNOWN
    assert "exec" in text_of(failed)


def test_exec_in_an_unknown_task_says_not_found(plugin: PluginProcess) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        list(plugin.execute(iter([_setup("alloc/nobody/00000000", "true")])))
    assert text_of(failed) == "task not found for given id"


@pytest.mark.parametrize(
    ("command", "text"), [("half", "without an exit code"), ("break", "ZeroDivisionError")]
)
def test_an_exec_that_breaks_off_is_an_error_and_no_success(
    plugin: PluginProcess, command: str, text: str
) -> None:
    requests: queue.Queue[Exec] = queue.Queue()
    requests.put(_setup(started(plugin, f"exec-{command}"), command))
    with pytest.raises(grpc.RpcError) as failed:
        list(plugin.execute(iter(requests.get, None)))
    requests.put(Exec())
    requests.put(None)  # type: ignore[arg-type]
    assert failed.value.code() is grpc.StatusCode.UNKNOWN
    assert text in text_of(failed)


def test_an_exec_whose_caller_cancels_is_closed(plugin: PluginProcess) -> None:
    requests: queue.Queue[Exec | None] = queue.Queue()
    requests.put(_setup(started(plugin, "leave"), "forever"))
    answers = plugin.execute(iter(requests.get, None))
    assert next(answers).stdout.data == b"running"
    answers.cancel()
    requests.put(None)
    wait_until(
        lambda: any(item.get("command") == "forever" for item in plugin.log()),
        DEADLINE_S,
        "the exec was not closed",
    )
