"""The test's end of `host/`: commands out, answers and events in, one JSON object per line."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.closing import Closing
from tests.support.kernel import mounted
from tests.support.nomad.leftovers import end_all_with, end_cgroups, pids_with, unmount_below
from tests.support.plugin.plugin_dir import make_plugin_dir
from tests.support.waiting import slowed, wait_until

Json = dict[str, Any]
DRIVER = "containerd-driver"
_ANSWER_S = 90


class HostError(Exception):
    """An error in the answer of the host, of Nomad's code in the host, or of the plugin.

    Attributes:
        answer: the whole answer.
    """

    def __init__(self, answer: Json) -> None:
        super().__init__(answer["error"])
        self.answer = answer


@dataclass(slots=True, kw_only=True)
class HostTask:
    """A task in the host's terms; ids are new unless given."""

    alloc_dir: Path
    config_hcl: str
    name: str = "main"
    alloc_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    id: str = ""
    env: dict[str, str] = field(default_factory=dict)
    user: str = ""
    cpu_shares: int = 100
    memory_mb: int = 64
    memory_max_mb: int = 0
    mounts: Sequence[Json] = ()
    dns: Json | None = None
    collector: Json | None = None

    def __post_init__(self) -> None:
        self.id = self.id or f"{self.alloc_id}/{self.name}/{uuid.uuid4().hex[:8]}"

    def to_wire(self) -> Json:
        """Converts the task to the host's form."""
        return {
            "id": self.id,
            "name": self.name,
            "alloc_id": self.alloc_id,
            "alloc_dir": str(self.alloc_dir),
            "config_hcl": self.config_hcl,
            "env": self.env,
            "user": self.user,
            "cpu_shares": self.cpu_shares,
            "memory_mb": self.memory_mb,
            "memory_max_mb": self.memory_max_mb,
            "mounts": list(self.mounts),
            "dns": self.dns,
            "collector": self.collector,
        }

    def log(self, stream: str = "stdout") -> str:
        """Returns the task's output that Nomad's log collector has written so far."""
        path = self.alloc_dir / "alloc" / "logs" / f"{self.name}.{stream}.0"
        return path.read_text() if path.exists() else ""

    def wait_log(self, text: str, stream: str = "stdout", timeout_s: float = 20) -> str:
        """Waits until the log has the text, and returns the log."""
        wait_until(
            lambda: text in self.log(stream),
            timeout_s,
            lambda: f"{text!r} in {self.log(stream)[-1000:]!r}",
        )
        return self.log(stream)


class GoHost(Closing):
    """The host's process with a launched plugin: `with GoHost(binary, …) as host`.

    Args:
        binary: the host of one Nomad version.
        plugin_config: the body of the agent's `config` block for the driver, in HCL.
        state_dir: state directory of the driver, whose processes end with the host.
    """

    def __init__(self, binary: Path, plugin_config: str, state_dir: Path) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="cd-host-"))
        self.plugins = self.base / "plugins"
        make_plugin_dir(self.plugins)
        self.plugin_config = plugin_config
        self.log = self.base / "host.log"
        self.events: list[Json] = []
        self._binary = binary
        self._state_dir = state_dir
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._ids = itertools.count(1)
        self._pending: dict[int, Future[Json]] = {}
        self._lock = threading.Lock()
        self._collectors: set[int] = set()
        self._tasks: dict[str, HostTask] = {}

    def enter(self) -> None:
        """See `Closing.enter`."""
        self.start()
        self.launch()

    # The process

    def start(self) -> None:
        """Starts the host; nothing is launched yet."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._binary)],
                cwd=self.base,
                env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.base)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def kill(self) -> None:
        """Kills only the host with SIGKILL, as when an agent crashes: the plugin keeps running."""
        if self._process is not None:
            self._process.kill()
            self._ended()

    def quit(self) -> None:
        """Ends the host cleanly, as when an agent is stopped: the plugin ends, tasks stay."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._ended()

    def close(self) -> None:
        """Ends the host, the plugin, the driver's processes, and removes the files."""
        try:
            if self._process is not None:
                with contextlib.suppress(HostError, AssertionError, OSError):
                    self.end_all()
            self.quit()
        finally:
            self.kill()
            for pid in self._collectors & set(pids_with(str(self._binary))):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for folder in (self.base, self._state_dir):
                end_all_with(str(folder))
            for task in self._tasks.values():
                end_cgroups(task.alloc_id)
            unmount_below(self.base)
            mounted.detach_below(self.base)
            shutil.rmtree(self.base, ignore_errors=True)

    def tail(self) -> str:
        """Returns the end of the host's log, the plugin's lines included."""
        return self.log.read_text(errors="replace")[-3000:]

    # Commands

    def send(self, op: str, **fields: Any) -> Future[Json]:
        """Sends a command and returns a future for the answer or a HostError."""
        assert self._process is not None
        assert self._process.stdin is not None
        number = next(self._ids)
        future: Future[Json] = Future()
        with self._lock:
            self._pending[number] = future
            self._process.stdin.write(json.dumps({"id": number, "op": op, **fields}) + "\n")
            self._process.stdin.flush()
        return future

    def call(self, op: str, **fields: Any) -> Json:
        """Sends a command and waits for the answer.

        Raises:
            HostError: the answer is an error.
        """
        try:
            return self.send(op, **fields).result(slowed(_ANSWER_S))
        except TimeoutError as error:
            raise AssertionError(f"no answer to {op} in {_ANSWER_S} s: {self.tail()}") from error

    def launch(self, *, config_hcl: str | None = None, reattach: Json | None = None) -> Json:
        """Scans the plugin directory and starts or reattaches to the driver's plugin."""
        return self.call(
            "launch",
            plugin_dir=str(self.plugins),
            driver=DRIVER,
            config_hcl=self.plugin_config if config_hcl is None else config_hcl,
            reattach=reattach,
        )

    def plugin_pid(self) -> int:
        """Returns the pid of the current plugin."""
        pid: int = self.call("plugin")["reattach"]["Pid"]
        return pid

    def task(self, config_hcl: str, **fields: Any) -> HostTask:
        """Builds a task with an allocation directory."""
        folder = Path(tempfile.mkdtemp(prefix="alloc-", dir=self.base))
        return HostTask(alloc_dir=folder, config_hcl=config_hcl, **fields)

    def begin(self, task: HostTask) -> Json:
        """Starts the task and returns the answer, which contains the handle."""
        self._tasks[task.id] = task
        answer = self.call("start", task=task.to_wire())
        task.collector = answer["collector"]
        return answer

    def run(self, config_hcl: str, **fields: Any) -> HostTask:
        """Builds a task and starts the task."""
        task = self.task(config_hcl, **fields)
        self.begin(task)
        return task

    def end(self, task: HostTask) -> None:
        """Destroys a task, running or not."""
        self.call("destroy", task_id=task.id, force=True)
        self._tasks.pop(task.id, None)

    def end_all(self) -> None:
        """Destroys the tasks left by a test."""
        for task in list(self._tasks.values()):
            self.end(task)

    def exec(self, task: HostTask, *argv: str, timeout_s: float = 20) -> tuple[int, str, str]:
        """Runs ExecTask and returns exit code, stdout, stderr."""
        answer = self.call("exec", task_id=task.id, argv=argv, timeout_s=timeout_s)
        return answer["exit_code"], decoded(answer["stdout"]), decoded(answer["stderr"])

    def exec_stream(self, task: HostTask, argv: Sequence[str], *, tty: bool = False) -> ExecSession:
        """Runs ExecTaskStreaming and returns a session that takes input and collects output."""
        name = uuid.uuid4().hex
        future = self.send("exec_stream", task_id=task.id, argv=argv, tty=tty, session=name)
        session = ExecSession(host=self, name=name, future=future)
        self.wait_event(
            lambda event: event.get("session") == name and bool(event.get("opened")), "exec opened"
        )
        return session

    def wait_event(self, wanted: Callable[[Json], bool], what: str, timeout_s: float = 30) -> Json:
        """Waits for the first wanted event, past events included."""
        return wait_until(
            lambda: next((event for event in list(self.events) if wanted(event)), None) or {},
            timeout_s,
            lambda: f"{what} among {self.events[-10:]}; {self.tail()}",
        )

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            message = json.loads(line)
            if "event" in message:
                self.events.append(message)
                continue
            if "collector" in message:
                self._collectors.add(message["collector"]["Pid"])
            future = self._pending.pop(message["re"])
            if message["ok"]:
                future.set_result(message)
            else:
                future.set_exception(HostError(message))

    def _ended(self) -> None:
        assert self._process is not None
        assert self._reader is not None
        try:
            self._process.wait(slowed(30))
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(slowed(30))
        self._reader.join(slowed(30))
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and not stream.closed:
                stream.close()
        self._process = None
        for future in self._pending.values():
            future.cancel()
        self._pending.clear()


@dataclass(slots=True, kw_only=True)
class ExecSession:
    """A streaming exec under way."""

    host: GoHost
    name: str
    future: Future[Json]

    def type(self, text: str) -> None:
        """Sends stdin."""
        data = base64.b64encode(text.encode()).decode()
        self.host.call("exec_input", session=self.name, data=data)

    def close_stdin(self) -> None:
        """Ends stdin; a command that has ended has no stdin any more."""
        try:
            self.host.call("exec_input", session=self.name, close=True)
        except HostError:
            wait_until(self.future.done, 30, f"no exec session {self.name}, and no end of it")

    def resize(self, height: int, width: int) -> None:
        """Sets the terminal's size."""
        self.host.call("exec_input", session=self.name, height=height, width=width)

    def heartbeat(self) -> None:
        """Sends the empty message which an agent sends every ten seconds."""
        self.host.call("exec_input", session=self.name)

    def output(self, stream: str = "stdout") -> str:
        """Returns all output so far."""
        mine = (event for event in list(self.host.events) if event.get("session") == self.name)
        return "".join(decoded(event[stream]) for event in mine if event.get(stream))

    def wait_output(self, text: str, stream: str = "stdout") -> None:
        """Waits until the text came out."""
        wait_until(
            lambda: text in self.output(stream),
            20,
            lambda: f"{text!r} in {self.output(stream)!r}",
        )

    def exit_code(self) -> int:
        """Waits for the command's end."""
        code: int = self.future.result(slowed(30)).get("exit_code") or 0
        return code


def decoded(data: str | None) -> str:
    """Decodes bytes from Go's JSON."""
    return base64.b64decode(data or "").decode(errors="replace")
