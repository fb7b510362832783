"""A plugin started as go-plugin starts a plugin, and calls over the plugin's socket."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import grpc

from plugin import environment
from proto.nomad import base_pb2, driver_pb2, goplugin_pb2, health_pb2
from tests.support.plugin.plugin_dir import ROOT
from tests.support.waiting import slowed

BASE = "hashicorp.nomad.plugins.base.proto.BasePlugin"
DRIVER = "hashicorp.nomad.plugins.drivers.proto.Driver"
CONTROLLER = "plugin.GRPCController"
HEALTH = "grpc.health.v1.Health"
DEADLINE_S = 30.0

_FAKE_SCRIPT = """\
#!{python} -I
import sys
sys.path.insert(0, {root!r})
from plugin import json_logging, serve
from plugin.rpc import retries
json_logging.install()
retries.PAUSE_S = 2.0
from tests.support.fakes.gateway import FakeGateway
serve.run(FakeGateway)
"""
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def make_fake_plugin(directory: Path) -> Path:
    """Writes an executable that serves the fake gateway."""
    program = directory / "containerd-driver"
    program.write_text(_FAKE_SCRIPT.format(python=sys.executable, root=str(ROOT)))
    program.chmod(0o755)
    return program


class PluginProcess:
    """A running plugin and a context manager; `line` is the handshake.

    Args:
        program: the executable.
        log_is_read: False makes stderr a broken pipe, as after an agent's crash.
        variables: additions to the environment.
    """

    def __init__(self, program: Path, *, log_is_read: bool = True, **variables: str) -> None:
        nobody, broken = os.pipe()
        os.close(nobody)
        self.child = subprocess.Popen(
            [str(program)],
            env=environment.for_plugin() | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if log_is_read else broken,
        )
        os.close(broken)
        self._log: list[bytes] = []
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        self.line = self._handshake()
        self.socket = self.line.split("|")[3]
        self.channel = grpc.insecure_channel(
            f"unix:{self.socket}",
            options=[("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process at once."""
        self.channel.close()
        with contextlib.suppress(ProcessLookupError):
            self.child.kill()
        self.child.wait(slowed(DEADLINE_S))
        self._reader.join(slowed(DEADLINE_S))
        # A plugin that was killed could not.
        shutil.rmtree(Path(self.socket).parent, ignore_errors=True)
        for pipe in (self.child.stdout, self.child.stderr):
            if pipe is not None:
                pipe.close()

    def _handshake(self) -> str:
        assert self.child.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.child.stdout, selectors.EVENT_READ)
            if not selector.select(slowed(DEADLINE_S)):
                self.child.kill()
                raise AssertionError(f"no handshake: {self._log}")
        line = self.child.stdout.readline().decode()
        if not line.endswith("\n"):
            self.child.kill()
            self._reader.join(slowed(DEADLINE_S))
            raise AssertionError(f"no handshake: {b''.join(self._log)!r}")
        return line

    def _read_log(self) -> None:
        if self.child.stderr is not None:
            self._log.extend(iter(self.child.stderr.readline, b""))

    def log(self) -> list[dict[str, Any]]:
        """Returns the plugin's log so far; an agent must survive every line."""
        return [checked_hclog_line(line) for line in list(self._log)]

    def stderr_lines(self) -> list[str]:
        """Returns all lines of stderr so far, including lines that are no log records."""
        return [line.decode() for line in list(self._log)]

    def rest_of_stdout(self) -> bytes:
        """Reads stdout after the handshake to the end: the process must have ended."""
        assert self.child.stdout is not None
        return self.child.stdout.read()

    def unary(self, service: str, method: str, request: Any, timeout_s: float = DEADLINE_S) -> Any:
        """Makes one call with one answer."""
        return self.unary_call(service, method)(request, timeout=slowed(timeout_s))

    def unary_call(self, service: str, method: str) -> Any:
        """Returns the callable of one method."""
        request, response = _types(service, method)
        return self.channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )

    def driver(self, method: str, **fields: Any) -> Any:
        """Makes one unary call of the Driver service."""
        request = getattr(driver_pb2, f"{method}Request")(**fields)
        return self.unary(DRIVER, method, request)

    def stream(self, method: str, **fields: Any) -> Any:
        """Opens a stream of answers of the Driver service."""
        request = getattr(driver_pb2, f"{method}Request")
        response = "DriverTaskEvent" if method == "TaskEvents" else f"{method}Response"
        call = self.channel.unary_stream(
            f"/{DRIVER}/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=getattr(driver_pb2, response).FromString,
        )
        return call(request(**fields), timeout=slowed(DEADLINE_S))

    def execute(self, requests: Iterator[driver_pb2.ExecTaskStreamingRequest]) -> Any:
        """Opens an exec with its streams."""
        call = self.channel.stream_stream(
            f"/{DRIVER}/ExecTaskStreaming",
            request_serializer=driver_pb2.ExecTaskStreamingRequest.SerializeToString,
            response_deserializer=driver_pb2.ExecTaskStreamingResponse.FromString,
        )
        return call(requests, timeout=slowed(DEADLINE_S))

    def shut_down(self) -> float:
        """Ends the plugin by go-plugin's Kill; returns the seconds until the process's end."""
        began = time.monotonic()
        self.unary(CONTROLLER, "Shutdown", goplugin_pb2.Empty())
        self.child.wait(slowed(DEADLINE_S))
        return time.monotonic() - began


def _types(service: str, method: str) -> tuple[Any, Any]:
    if service == CONTROLLER:
        return goplugin_pb2.Empty, goplugin_pb2.Empty
    if service == HEALTH:
        return health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
    module: Any = base_pb2 if service == BASE else driver_pb2
    return getattr(module, f"{method}Request"), getattr(module, f"{method}Response")


def checked_hclog_line(line: bytes | str) -> dict[str, Any]:
    """Returns the fields of a log line that go-plugin's parser accepts as one record."""
    assert len(line) < 64 * 1024
    fields: dict[str, Any] = json.loads(line, parse_constant=_no_constant)
    for key in ("@level", "@message", "@timestamp"):
        assert isinstance(fields[key], str), key
    assert fields["@level"] in {"trace", "debug", "info", "warn", "error"}
    assert _TIMESTAMP.fullmatch(fields["@timestamp"])
    assert not any(isinstance(value, dict | list) for value in fields.values())
    return fields


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")
