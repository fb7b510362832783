"""containerd's service Tasks: processes of containers, and commands (execs) inside containers."""

from __future__ import annotations

from google.protobuf.any_pb2 import Any as AnyMessage

from containerd.api import methods
from containerd.api.calls import CALL_S, LIST_S, RUNTIME_S, AsyncCalls
from containerd.api.errors import unless_missing, unless_silent
from containerd.api.records import Exit, Mount, Status, Streams, TaskRecord
from proto.containerd import task_types_pb2, tasks_pb2, types_pb2
from proto.errors import Code, DriverError

_PROCESS_URL = "types.containerd.io/opencontainers/runtime-spec/1/Process"


class Tasks:
    """Tasks and execs of a namespace. Deleting a missing task or exec is no failure.

    A container has at most one task. An exec is a further process with its own id.
    """

    def __init__(self, call: AsyncCalls) -> None:
        self._call = call

    async def create(self, id: str, mounts: tuple[Mount, ...], streams: Streams) -> int:
        """Creates the container's process without starting its program; returns the pid.

        Args:
            id: the container.
            mounts: the mounts of the container's root, as `Snapshots.prepare` returned them.
            streams: FIFOs that must exist; the shim opens them before the call returns.

        Raises:
            DriverError: ALREADY_EXISTS for a task, or for remains of a task, of the same id;
                NOT_FOUND for a missing container; EXHAUSTED with advice.
        """
        request = tasks_pb2.CreateTaskRequest(
            container_id=id,
            rootfs=[
                types_pb2.Mount(type=m.type, source=m.source, options=m.options, target=m.target)
                for m in mounts
            ],
            stdin=streams.stdin,
            stdout=streams.stdout,
            stderr=streams.stderr,
            terminal=streams.terminal,
        )
        action = f"create the task of container {id}"
        try:
            answer = await self._call(methods.TASK_CREATE, request, action, timeout_s=RUNTIME_S)
        except DriverError as error:
            # A bundle that was not cleaned up, or runc's state; runc's text changed over time.
            texts = (f"/{id}: file exists", "container with id exists", "with given ID already")
            if any(text in str(error) for text in texts):
                error.code = Code.ALREADY_EXISTS
            raise
        return answer.pid

    async def start(self, id: str) -> int:
        """Starts the program of a created task; returns the pid."""
        request = tasks_pb2.StartRequest(container_id=id)
        action = f"start the task of container {id}"
        answer = await self._call(methods.TASK_START, request, action, timeout_s=RUNTIME_S)
        return answer.pid

    async def get(self, id: str) -> TaskRecord | None:
        """Returns the container's task; None if the task is missing.

        The status is UNKNOWN if the task's shim does not answer. Releases of containerd up to 2.1
        answer so; 2.3 and 2.4 answer with an error.
        """
        request = tasks_pb2.GetRequest(container_id=id)
        action = f"look up the task of container {id}"
        call = self._call(methods.TASK_GET, request, action, timeout_s=CALL_S)
        answer = await unless_silent(unless_missing(call), tasks_pb2.GetResponse())
        return None if answer is None else _record(id, answer.process)

    async def list(self) -> tuple[TaskRecord, ...]:
        """Returns the tasks of all containers. A task whose shim does not answer can be missing."""
        request = tasks_pb2.ListTasksRequest()
        answer = await self._call(methods.TASK_LIST, request, "list tasks", timeout_s=LIST_S)
        return tuple(_record(process.id, process) for process in answer.tasks)

    async def delete(self, id: str) -> Exit | None:
        """Deletes an ended task, and returns its exit; None if the task is missing.

        Raises:
            DriverError: PRECONDITION while the task runs.
        """
        request = tasks_pb2.DeleteTaskRequest(container_id=id)
        action = f"delete the task of container {id}"
        answer = await unless_missing(
            self._call(methods.TASK_DELETE, request, action, timeout_s=RUNTIME_S)
        )
        return None if answer is None else _exit(answer)

    async def kill(self, id: str, signal: int, *, everyone: bool, exec_id: str = "") -> None:
        """Sends a signal to processes of a container.

        Args:
            id: the container.
            signal: the signal's number.
            everyone: True for every process of the container, False for a single process.
            exec_id: the exec of the single process; empty for the task's first process.

        Raises:
            DriverError: NOT_FOUND for a missing task, exec or process.
        """
        request = tasks_pb2.KillRequest(
            container_id=id, signal=signal, all=everyone, exec_id=exec_id
        )
        action = f"send signal {signal} to container {id}"
        await self._call(methods.TASK_KILL, request, action, timeout_s=CALL_S)

    async def wait(self, id: str, exec_id: str = "") -> Exit:
        """Waits, without a time limit, for the end of the first process or of an exec."""
        request = tasks_pb2.WaitRequest(container_id=id, exec_id=exec_id)
        action = f"wait for container {id}"
        answer = await self._call(methods.TASK_WAIT, request, action, timeout_s=None)
        return _exit(answer)

    async def create_exec(
        self, id: str, exec_id: str, process_json: bytes, streams: Streams
    ) -> None:
        """Creates an exec without starting its program.

        Args:
            id: the container; its task must run.
            exec_id: id of the new exec, unique within the container.
            process_json: a process of the OCI runtime spec: arguments, environment, user,
                working directory.
            streams: FIFOs that must exist. With a terminal the shim opens no stderr.

        Raises:
            DriverError: ALREADY_EXISTS for an id in use, NOT_FOUND for a missing task.
        """
        request = tasks_pb2.ExecProcessRequest(
            container_id=id,
            exec_id=exec_id,
            spec=AnyMessage(type_url=_PROCESS_URL, value=process_json),
            stdin=streams.stdin,
            stdout=streams.stdout,
            stderr=streams.stderr,
            terminal=streams.terminal,
        )
        action = f"prepare a command in container {id}"
        await self._call(methods.TASK_EXEC, request, action, timeout_s=RUNTIME_S)

    async def start_exec(self, id: str, exec_id: str) -> int:
        """Starts the program of a created exec; returns the pid."""
        request = tasks_pb2.StartRequest(container_id=id, exec_id=exec_id)
        action = f"run a command in container {id}"
        answer = await self._call(methods.TASK_START, request, action, timeout_s=RUNTIME_S)
        return answer.pid

    async def resize(self, id: str, exec_id: str, *, width: int, height: int) -> None:
        """Sets the window size of an exec's terminal.

        Args:
            id: the container.
            exec_id: the exec; empty for the task's first process.
            width: columns, in characters.
            height: rows, in characters.

        Raises:
            DriverError: NOT_FOUND for a missing exec.
        """
        request = tasks_pb2.ResizePtyRequest(
            container_id=id, exec_id=exec_id, width=width, height=height
        )
        action = f"resize the terminal in container {id}"
        await self._call(methods.TASK_RESIZE, request, action, timeout_s=CALL_S)

    async def close_stdin(self, id: str, exec_id: str) -> None:
        """Closes the shim's writing end of an exec's stdin, so that the program can read its end.

        Raises:
            DriverError: NOT_FOUND for a missing exec.
        """
        request = tasks_pb2.CloseIORequest(container_id=id, exec_id=exec_id, stdin=True)
        action = f"close stdin in container {id}"
        await self._call(methods.TASK_CLOSE_IO, request, action, timeout_s=CALL_S)

    async def delete_exec(self, id: str, exec_id: str) -> None:
        """Deletes an ended exec."""
        request = tasks_pb2.DeleteProcessRequest(container_id=id, exec_id=exec_id)
        action = f"remove a command of container {id}"
        await unless_missing(
            self._call(methods.TASK_DELETE_PROCESS, request, action, timeout_s=RUNTIME_S)
        )


def _record(id: str, process: task_types_pb2.Process) -> TaskRecord:
    return TaskRecord(
        id=id,
        pid=process.pid,
        status=Status(process.status),
        exit_status=process.exit_status,
        stdout=process.stdout,
        stderr=process.stderr,
    )


def _exit(answer: tasks_pb2.WaitResponse | tasks_pb2.DeleteResponse) -> Exit:
    return Exit(code=answer.exit_status, at_ns=answer.exited_at.ToNanoseconds())
