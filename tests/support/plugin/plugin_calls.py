"""Calls of a plugin in the RPC tests, and the checks of every answer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import msgpack
import pytest

from proto.nomad import driver_pb2
from tests.support.plugin.plugin_process import DEADLINE_S, DRIVER, PluginProcess
from tests.support.waiting import slowed

UNARIES = [
    "TaskConfigSchema",
    "Capabilities",
    "RecoverTask",
    "StartTask",
    "WaitTask",
    "StopTask",
    "DestroyTask",
    "InspectTask",
    "Shutdown",
    "SignalTask",
    "ExecTask",
    "CreateNetwork",
    "DestroyNetwork",
    "Init",
]


@contextlib.contextmanager
def unhurt(program: Path) -> Iterator[PluginProcess]:
    """Runs a plugin for a `with` block and checks at the end that the plugin still works."""
    with PluginProcess(program) as process:
        yield process
        process.driver("Init")
        process.shut_down()
        assert process.rest_of_stdout() == b""
        process.log()  # every line is one that an agent survives


def task_message(name: str, *, image: str = "busybox", **fields: Any) -> driver_pb2.TaskConfig:
    """Returns a protobuf task that the fake gateway starts."""
    fields.setdefault("msgpack_driver_config", msgpack.packb({"image": image}))
    return driver_pb2.TaskConfig(id=f"alloc/{name}/0123abcd", name=name, alloc_id="alloc", **fields)


def started(plugin: PluginProcess, name: str) -> str:
    """Starts a task and returns the task's id."""
    task = task_message(name)
    plugin.driver("StartTask", task=task)
    return task.id


def failure_of(plugin: PluginProcess, method: str, **fields: Any) -> Any:
    """Makes a call that must fail and returns the error."""
    with pytest.raises(grpc.RpcError) as failed:
        plugin.driver(method, **fields)
    return failed.value


def text_of(failed: pytest.ExceptionInfo[grpc.RpcError]) -> str:
    """Returns the text of an error."""
    return failed.value.details() or ""


def raw_call(plugin: PluginProcess, path: str, request: bytes) -> bytes:
    """Sends one request in bytes and returns the answer in bytes."""
    channel: Any = plugin.channel
    answer: bytes = channel.unary_unary(path)(request, timeout=slowed(DEADLINE_S))
    return answer


def answered_or_refused(plugin: PluginProcess, method: str, **fields: Any) -> None:
    """Checks that a call gets an answer, or a refusal that reports no defect of the plugin."""
    request = getattr(driver_pb2, f"{method}Request")(**fields)
    call = plugin.unary_call(DRIVER, method).future(request, timeout=slowed(DEADLINE_S))
    # FAILED_PRECONDITION: it may work when tried again.
    refused = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.FAILED_PRECONDITION}
    assert call.code() in {grpc.StatusCode.OK, *refused}, call.details()
    if call.code() in refused:
        assert call.details()
        assert "the containerd driver failed inside" not in call.details()
