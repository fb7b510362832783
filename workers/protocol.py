"""Protocol between plugin, launcher and workers: names, records, versions.

Both sides import this module, so the module needs no more than the small import set of workers:
dataclasses would import `inspect` and cost every launcher 1.5 MB, typing another 0.8 MB. `Record`
replaces both. A record ignores unknown fields, which a newer peer sent.

An upgrade leaves workers of the earlier release, and a downgrade leaves workers of the newer
release, so both sides state the versions that they speak. A new field, request or event is no new
version: a peer ignores an unknown field or event, and refuses an unknown request with UNSUPPORTED.
Every version has `end` and `retire`.
"""

from __future__ import annotations

from proto.errors import Code, DriverError

TYPE_CHECKING = False  # not from typing, see the module's docstring
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, ClassVar, Self, dataclass_transform
else:

    def dataclass_transform(**_: object) -> Callable[[type], type]:
        """Does nothing at run time; type checkers read the function of the typing module."""
        return lambda cls: cls


OLDEST, VERSION = 1, 1
"""Oldest and newest version that this release speaks."""

STATED = {"v": OLDEST, "v_max": VERSION}
"""Versions in every hello, fork and answer. Release 1.0.0 reads only `v`, and speaks only 1."""

# Names below the driver's state directory.
LAUNCHER_SOCKET = "launcher.sock"
LAUNCHER_LOCK = "launcher.lock"
LAUNCHER_LOG = "launcher.log"

# Names below one task's state directory.
CONTROL_SOCKET = "control.sock"
EXIT_RECORD = "exit"
STDOUT_FIFO, STDERR_FIFO = "stdout.fifo", "stderr.fifo"
HEALTH_CHECK = "health"
WORKER_LOCK = "lock"

# Requests. HELLO is understood by launcher and worker alike.
HELLO = "hello"
FORK = "fork"
RETIRE = "retire"
WATCH = "watch"
KILL = "kill"
STATS = "stats"
END = "end"

RELEASE_READERS = "farewell"
"""Field of END: the task is destroyed; readers that wait for the end of a log receive the end."""

STOPS = "stops"
"""Field of KILL: the signal begins a stop of the task, so no more health checks begin."""

# Events.
READY = "ready"
FAILED = "failed"
EXIT = "exit"
DRAINED = "drained"
LOG = "log"
OOM = "oom"
HEALTH = "health"
"""Event with a HealthState; in `hello` the present status, or "" without a health check; in the
answer to WATCH the status of a task with a health check."""

# States of a log FIFO.
READING = "reading"
STALLED = "stalled"
DROPPING = "dropping"
BLOCKED = "blocked"

LOG_BUFFER_BYTES = 16 << 20
"""Default size of a log FIFO whose reader has stopped."""

FILES, JOURNALD = "files", "journald"
"""Types of a log that the worker itself collects; a log that Nomad collects has no type."""

MAX_INTERVAL_MS = 24 * 3600 * 1000
"""Longest time between two samples."""

LOST_CODE = 137
"""Exit code of a task whose shim vanished without an answer: the code after SIGKILL."""

_MAX_SIGNAL = 64

_TYPES: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "str": (str,),
    "bool": (bool,),
    "int | None": (int, type(None)),
    "bool | None": (bool, type(None)),
}


def agree(peer: Mapping[str, object]) -> int:
    """Returns the newest version that both this release and the sender of a frame speak.

    A frame without a version follows the agreement of the connection. `v` without `v_max` is the
    only version of the sender.

    Raises:
        DriverError: code UNSUPPORTED, no version is common.
    """
    oldest = peer.get("v", OLDEST)
    newest = peer.get("v_max", oldest if "v" in peer else VERSION)
    if type(oldest) is int and type(newest) is int and oldest <= VERSION and newest >= OLDEST:
        return min(newest, VERSION)
    raise DriverError(
        "two processes of the driver have no version in common",
        details=f"one speaks {oldest!s:.20} to {newest!s:.20}, the other {OLDEST} to {VERSION}",
        resolution="restart the launcher; running tasks are not affected",
        code=Code.UNSUPPORTED,
    )


def signal_number(request: Mapping[str, object]) -> int:
    """Reads the signal of a KILL.

    Raises:
        DriverError: code INVALID, no signal.
    """
    number = request.get("signal")
    if type(number) is not int or not 0 < number <= _MAX_SIGNAL:
        raise DriverError(f"{number!r:.20} is not a signal number", code=Code.INVALID)
    return number


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Record:
    """A frozen set of named values, sent as a map.

    Subclasses declare their fields as annotations, with a class attribute as the default.
    """

    if TYPE_CHECKING:
        _kinds: ClassVar[dict[str, tuple[type, ...]]]
        _defaults: ClassVar[dict[str, object]]

    def __init_subclass__(cls) -> None:
        cls._kinds = {name: _TYPES[kind] for name, kind in cls.__annotations__.items()}
        cls._defaults = {name: vars(cls)[name] for name in cls._kinds if name in vars(cls)}

    def __init__(self, **fields: Any) -> None:
        values = {**self._defaults, **fields}
        if values.keys() != self._kinds.keys():
            names = ", ".join(sorted(values.keys() ^ self._kinds.keys()))
            raise TypeError(f"{type(self).__name__} has missing or unknown fields: {names}")
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be changed")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.to_wire() == self.to_wire()

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__[name] for name in self._kinds))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.to_wire().items())
        return f"{type(self).__name__}({fields})"

    def to_wire(self) -> dict[str, object]:
        """Returns the form for msgpack: a map of the field names to plain values."""
        return dict(self.__dict__)

    @classmethod
    def from_wire(cls, fields: Mapping[str, object]) -> Self:
        """Reads the record in `fields`.

        Raises:
            DriverError: code CORRUPT, a field is missing or has another type.
        """
        values = dict(cls._defaults)
        for name, kinds in cls._kinds.items():
            if name in fields:
                values[name] = fields[name]
            # Not isinstance: True would pass for a number.
            if name not in values or type(values[name]) not in kinds:
                raise DriverError(
                    f"invalid {cls.__name__} message from another driver process",
                    details=f"{name} is not {cls.__annotations__[name]}",
                    resolution="restart the driver; both processes must speak the same version",
                    code=Code.CORRUPT,
                )
        return cls(**values)


class WorkerSpec(Record):
    """A request for a task's worker.

    Attributes:
        name: the container id.
        dir: the task's state directory: an absolute path, mode 0700, created by the plugin.
        stdout: path of the FIFO for the task's output; "" or /dev/null: no log. With the type
            FILES the path of the log files without their numbers; with JOURNALD only a name.
        stderr: path of the FIFO for the task's error output; as `stdout`.
        log_buffer_bytes: size limit of each FIFO while the reader has stopped.
        log_drops: a full FIFO drops the oldest bytes; if False, the task waits.
        log_patience_ms: a reader that has not read for this long counts as stopped.
        stdout_source: path of the FIFO to which the shim writes, if other than `stdout`; the
            worker relays the bytes to `stdout`.
        stderr_source: as `stdout_source`, for `stderr`.
        holds_logs: when the plugin dies before naming the shim, the worker stays for a while and
            holds the write ends of the logs: the next attempt of the start may have the same
            readers.
        log_type: FILES or JOURNALD: the worker collects the logs, and the shim writes to
            STDOUT_FIFO and STDERR_FIFO in `dir`. "": Nomad collects the logs.
        log_files: largest number of files of a stream.
        log_file_bytes: largest size of a file.
        journal: path of journald's socket.
        journal_fields: fields of each message for journald: lines NAME=value.
    """

    name: str
    dir: str
    stdout: str = ""
    stderr: str = ""
    log_buffer_bytes: int = LOG_BUFFER_BYTES
    log_drops: bool = True
    log_patience_ms: int = 10_000
    stdout_source: str = ""
    stderr_source: str = ""
    holds_logs: bool = False
    log_type: str = ""
    log_files: int = 10
    log_file_bytes: int = 10 << 20
    journal: str = "/run/systemd/journal/socket"
    journal_fields: str = ""


class ShimTarget(Record):
    """A shim, and the container that a worker shall watch there.

    Attributes:
        address: address in containerd's form: unix://PATH, or the name of an abstract socket.
        api: version of the shim's Task service, 2 or 3.
        namespace: containerd's namespace of the container.
        container_id: the container's id.
        cgroup: False if the container has no cgroup of its own: the cgroup of its processes is
            that of containerd, so its values are not those of the task.
        host_kernel: True if the task's first process is a process of this host's kernel, which
            knows the exit code then. False for gVisor and Kata, and from an older plugin.
    """

    address: str
    api: int
    namespace: str
    container_id: str
    cgroup: bool = True
    host_kernel: bool = False


class ExitRecord(Record):
    """The end of a task.

    Attributes:
        code: exit status; 128 plus the signal number after a signal.
        at_ns: time of the exit, in ns since the epoch.
        oom_kills: number of the task's processes that the kernel killed for lack of memory.
        oom_killed: True if such a kill ended the task; None from a worker of an older release,
            which does not decide.
        lost: True if the shim vanished without an answer; the code is LOST_CODE then.
        reason: a sentence for a lost task, and for a task that its health check has ended; else "".
    """

    code: int
    at_ns: int
    oom_kills: int = 0
    oom_killed: bool | None = None
    lost: bool = False
    reason: str = ""


class LogState(Record):
    """The state of a log FIFO, reported after a change and after the first hello of a connection.

    Attributes:
        stream: stdout or stderr.
        state: READING: read again; STALLED: the reader has stopped; DROPPING, BLOCKED: the reader
            has stopped and the FIFO is full.
        kept: bytes that wait for a reader.
        dropped: bytes dropped since a plugin last received READING.
        limit: largest size of the FIFO in bytes that the kernel allows.
        wanted: size of the FIFO in bytes that the plugin asked for.
        problem: why the worker itself cannot write the log; "" if Nomad reads the FIFO.
    """

    stream: str
    state: str
    kept: int
    dropped: int
    limit: int
    wanted: int
    problem: str = ""


class Sample(Record):
    """A reading of a task's cgroup, in bytes and ns; None for a value that the kernel lacks.

    CPU times count from the creation of the cgroup. On v1, rss, cache and swap are parts of usage.
    t_ns is the time since the epoch, by a clock that can be set; m_ns is monotonic.
    """

    t_ns: int
    m_ns: int | None = None
    cpu_total_ns: int | None = None
    cpu_user_ns: int | None = None
    cpu_system_ns: int | None = None
    throttled_periods: int | None = None
    throttled_ns: int | None = None
    usage: int | None = None
    rss: int | None = None
    cache: int | None = None
    swap: int | None = None
    max_usage: int | None = None
    kernel_usage: int | None = None
    kernel_max_usage: int | None = None
