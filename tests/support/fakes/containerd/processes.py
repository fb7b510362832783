"""Tasks and execs of a fake containerd: real processes, the first of them behind a fake shim."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.timestamp_pb2 import Timestamp

from containerd.api import methods
from proto.containerd import task_types_pb2, tasks_pb2
from proto.errors import Code, DriverError
from tests.support.fakes.containerd.faults import Refused
from tests.support.fakes.containerd.metadata import Metadata, exists, gone, serves
from tests.support.fakes.shim import FakeShim, kill_group
from workers.shim import ttrpc

_STOPPED = task_types_pb2.STOPPED


@dataclass(slots=True)
class Exec:
    """A further process of a task, a child of the fake. CloseIO and `pipe` end its stdin."""

    request: tasks_pb2.ExecProcessRequest
    process: subprocess.Popen[bytes] | None = None
    stdin: int = -1
    ended: threading.Event = field(default_factory=threading.Event)
    at_ns: int = 0

    @property
    def code(self) -> int:
        """The exit code in a shim's terms."""
        code = self.process.returncode if self.process else 0
        return 128 - code if code < 0 else code

    def start(self) -> int:
        """Runs the command with the FIFOs of the request as streams."""
        request = self.request
        if request.terminal:
            raise Refused(grpc.StatusCode.UNIMPLEMENTED, "the fake has no terminals")
        arguments = json.loads(request.spec.value)["args"]
        if shutil.which(arguments[0]) is None:
            raise _unknown(f'exec failed: exec: "{arguments[0]}": no such file or directory')
        source = os.open(request.stdin or os.devnull, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(source, True)
        if request.stdin:
            self.stdin = os.open(request.stdin, os.O_WRONLY)
        paths = (request.stdout or os.devnull, request.stderr or os.devnull)
        outputs = [os.open(path, os.O_WRONLY) for path in paths]
        self.process = subprocess.Popen(
            arguments, stdin=source, stdout=outputs[0], stderr=outputs[1], start_new_session=True
        )
        for descriptor in (source, *outputs):
            os.close(descriptor)
        threading.Thread(target=self._reap, daemon=True).start()
        return self.process.pid

    def _reap(self) -> None:
        assert self.process is not None
        self.process.wait()
        self.at_ns = time.time_ns()
        self.close_stdin()
        self.ended.set()

    def close_stdin(self) -> None:
        """Closes the writing end that keeps the command's stdin open."""
        descriptor, self.stdin = self.stdin, -1
        if descriptor >= 0:
            os.close(descriptor)


@dataclass(slots=True)
class Task:
    """The processes of a container."""

    shim: FakeShim
    bundle: Path
    request: tasks_pb2.CreateTaskRequest
    execs: dict[str, Exec] = field(default_factory=dict)

    def state(self) -> task_types_pb2.Process:
        """Returns the shim's state of the task; a killed shim has ended its task."""
        process = task_types_pb2.Process(container_id=self.shim.name, id=self.shim.name)
        try:
            answer = self.shim.call("State", ttrpc.state_request(self.shim.name))
        except OSError:
            process.status = _STOPPED
            return process
        fields = ttrpc.parse(answer)
        status = task_types_pb2.Status.Name(ttrpc.number(fields, 4))
        process.MergeFrom(task_types_pb2.Process(pid=ttrpc.number(fields, 3), status=status))
        if process.status == _STOPPED:
            process.exit_status = ttrpc.number(fields, 9)
            process.exited_at.ParseFromString(ttrpc.octets(fields, 10))
        return process

    def remove(self) -> None:
        """Ends all processes of the task."""
        for one in self.execs.values():
            if one.process is not None and not one.ended.is_set():
                kill_group(one.process.pid)
                one.ended.wait(10)
        self.shim.remove()
        shutil.rmtree(self.bundle, ignore_errors=True)


class Tasks:
    """The tasks service of one namespace.

    `address` replaces the shim's own address in bundles. `make_shim` creates the shim of a task.
    """

    def __init__(self, metadata: Metadata, base: Path) -> None:
        self.address = ""
        self.make_shim: Callable[[str, str, Path, tuple[str, str]], FakeShim] = FakeShim
        self.tasks: dict[str, Task] = {}
        self._metadata = metadata
        self._base = base
        self._number = 0

    @serves(methods.TASK_CREATE)
    def create(self, request: tasks_pb2.CreateTaskRequest) -> tasks_pb2.CreateTaskResponse:
        container = self._metadata.container(request.container_id)
        if request.container_id in self.tasks:
            raise exists(f"task {request.container_id}")
        self._number += 1
        bundle = self._base / "io.containerd.runtime.v2.task" / self._metadata.name / container.id
        place = self._base / f"{self._number}.{len(self._metadata.name)}.sock"
        arguments = json.loads(container.spec.value)["process"]["args"]
        script = f"exec {shlex.join(arguments)}"
        shim = self.make_shim(container.id, script, place, (request.stdout, request.stderr))
        task = self.tasks[container.id] = Task(shim, bundle, request)
        bundle.mkdir(parents=True, exist_ok=True)
        own = shim.create().address
        (bundle / "address").write_text(self.address or own)
        if not shim.pid:
            self.tasks.pop(container.id, task).remove()
            raise _unknown("the shim ended")
        return tasks_pb2.CreateTaskResponse(container_id=container.id, pid=shim.pid)

    @serves(methods.TASK_START)
    def start(self, request: tasks_pb2.StartRequest) -> tasks_pb2.StartResponse:
        task = self._task(request.container_id)
        if request.exec_id:
            return tasks_pb2.StartResponse(pid=self._exec(task, request.exec_id).start())
        if task.state().status != task_types_pb2.CREATED:
            raise _unknown("cannot start a running process")
        task.shim.start()
        return tasks_pb2.StartResponse(pid=task.shim.pid)

    @serves(methods.TASK_GET)
    def get(self, request: tasks_pb2.GetRequest) -> tasks_pb2.GetResponse:
        return tasks_pb2.GetResponse(process=self._task(request.container_id).state())

    @serves(methods.TASK_LIST)
    def list(self, request: tasks_pb2.ListTasksRequest) -> tasks_pb2.ListTasksResponse:  # noqa: ARG002
        processes = [task.state() for task in list(self.tasks.values())]
        return tasks_pb2.ListTasksResponse(tasks=processes)

    @serves(methods.TASK_KILL)
    def kill(self, request: tasks_pb2.KillRequest) -> Empty:
        task = self._task(request.container_id)
        if request.exec_id:
            one = self._exec(task, request.exec_id)
            if one.process is None or one.ended.is_set():
                raise gone("process already finished")
            kill_group(one.process.pid, request.signal)
            return Empty()
        payload = ttrpc.kill_request(task.shim.name, request.signal, everyone=request.all)
        try:
            task.shim.call("Kill", payload)
        except DriverError as error:
            if error.code is not Code.NOT_FOUND:
                raise
            if not request.all:  # runc finds no process to signal, and is content
                raise gone(error.details) from error
        return Empty()

    @serves(methods.TASK_WAIT)
    def wait(self, request: tasks_pb2.WaitRequest) -> tasks_pb2.WaitResponse:
        task = self._task(request.container_id)
        if request.exec_id:
            one = self._exec(task, request.exec_id)
            one.ended.wait()
            return tasks_pb2.WaitResponse(exit_status=one.code, exited_at=_moment(one.at_ns))
        with contextlib.suppress(OSError):
            task.shim.call("Wait", ttrpc.wait_request(task.shim.name))
        ended = task.state()
        return tasks_pb2.WaitResponse(exit_status=ended.exit_status, exited_at=ended.exited_at)

    @serves(methods.TASK_DELETE)
    def delete(self, request: tasks_pb2.DeleteTaskRequest) -> tasks_pb2.DeleteResponse:
        task = self._task(request.container_id)
        ended = task.state()
        if ended.status == task_types_pb2.RUNNING:
            raise _unknown("failed to delete task: cannot delete a running process")
        del self.tasks[request.container_id]
        task.remove()
        return tasks_pb2.DeleteResponse(
            id=request.container_id,
            pid=ended.pid,
            exit_status=ended.exit_status,
            exited_at=ended.exited_at,
        )

    @serves(methods.TASK_EXEC)
    def exec(self, request: tasks_pb2.ExecProcessRequest) -> Empty:
        task = self._task(request.container_id)
        if request.exec_id in task.execs:
            raise exists(f"id {request.exec_id}")
        task.execs[request.exec_id] = Exec(request)
        return Empty()

    @serves(methods.TASK_CLOSE_IO)
    def close_io(self, request: tasks_pb2.CloseIORequest) -> Empty:
        self._exec(self._task(request.container_id), request.exec_id).close_stdin()
        return Empty()

    @serves(methods.TASK_DELETE_PROCESS)
    def delete_exec(self, request: tasks_pb2.DeleteProcessRequest) -> tasks_pb2.DeleteResponse:
        task = self._task(request.container_id)
        one = self._exec(task, request.exec_id)
        if one.process is not None and not one.ended.is_set():
            raise _unknown("cannot delete a running process")
        del task.execs[request.exec_id]
        return tasks_pb2.DeleteResponse(id=request.exec_id, exit_status=one.code)

    def close(self) -> None:
        """Ends every task."""
        for task in self.tasks.values():
            task.remove()
        self.tasks.clear()

    def _task(self, id: str) -> Task:
        # containerd finds a task through its container's record, and not without.
        self._metadata.container(id)
        if id not in self.tasks:
            raise gone(f"no running task found: task {id} not found")
        return self.tasks[id]

    def _exec(self, task: Task, id: str) -> Exec:
        if id not in task.execs:
            raise gone(f"process {id}")
        return task.execs[id]


def _unknown(text: str) -> Refused:
    return Refused(grpc.StatusCode.UNKNOWN, f"{text}: unknown")


def _moment(at_ns: int) -> Timestamp:
    moment = Timestamp()
    moment.FromNanoseconds(at_ns)
    return moment
