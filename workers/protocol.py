"""What the plugin, the launcher and the workers say to each other: names, records, versions.

The plugin's side and the workers' side both read it, so it stays inside the workers' small import
set: dataclasses would pull in `inspect` and cost every launcher 1.5 MB, typing another 0.8 MB.
`Record` is what is needed of them. A record ignores fields of a newer peer that it does not know.

An upgrade leaves workers of the release before, and a plugin may be an older one again, so both say
which versions they speak. A new field, request or event is no new version: who does not know it
passes it over, or refuses the request with UNSUPPORTED. `end` and `retire` are of every version.
"""

from __future__ import annotations

from proto.errors import Code, DriverError

TYPE_CHECKING = False  # not from typing: see the module's docstring
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, ClassVar, Self, dataclass_transform
else:

    def dataclass_transform(**_: object) -> Callable[[type], type]:
        """Says nothing at run time; type checkers read the typing module's."""
        return lambda cls: cls


OLDEST, VERSION = 1, 1
"""The versions that this release speaks, from and to."""

STATED = {"v": OLDEST, "v_max": VERSION}
"""Of every hello, fork and answer to them. Release 1.0.0 reads `v`, and speaks no other than 1."""

# Names below the driver's state directory.
LAUNCHER_SOCKET = "launcher.sock"
LAUNCHER_LOCK = "launcher.lock"
LAUNCHER_LOG = "launcher.log"

# Names below one task's state directory.
CONTROL_SOCKET = "control.sock"
EXIT_RECORD = "exit"
WORKER_LOCK = "lock"

# Requests. HELLO is understood by launcher and worker alike.
HELLO = "hello"
FORK = "fork"
RETIRE = "retire"
WATCH = "watch"
KILL = "kill"
STATS = "stats"
END = "end"

FAREWELL = "farewell"
"""A field of END: the task is destroyed, and whoever still waits for the end of a log gets it."""

# Events.
READY = "ready"
FAILED = "failed"
EXIT = "exit"
DRAINED = "drained"
LOG = "log"
OOM = "oom"

# States of a log FIFO.
READING = "reading"
STALLED = "stalled"
DROPPING = "dropping"
BLOCKED = "blocked"

LOG_BUFFER_BYTES = 16 << 20
"""What a log FIFO may hold while nobody reads, where the plugin does not say."""

MAX_INTERVAL_MS = 24 * 3600 * 1000
"""The longest time between two samples."""

LOST_CODE = 137
"""Exit code of a task whose shim vanished without an answer: as if killed by SIGKILL."""

_TYPES: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "str": (str,),
    "bool": (bool,),
    "int | None": (int, type(None)),
    "bool | None": (bool, type(None)),
}


def agree(peer: Mapping[str, object]) -> int:
    """The newest version that this release and whoever sent a frame speak.

    A frame that states no version goes with what its connection agreed on; `v` alone is the only
    version of its sender.

    Raises:
        DriverError: code UNSUPPORTED, there is none.
    """
    oldest = peer.get("v", OLDEST)
    newest = peer.get("v_max", oldest if "v" in peer else VERSION)
    if type(oldest) is int and type(newest) is int and oldest <= VERSION and newest >= OLDEST:
        return min(newest, VERSION)
    raise DriverError(
        "two processes of the driver have no version in common",
        details=f"one speaks {oldest!s:.20} to {newest!s:.20}, the other {OLDEST} to {VERSION}",
        resolution="restart the launcher; tasks go on meanwhile",
        code=Code.UNSUPPORTED,
    )


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Record:
    """A frozen set of named values that goes over the wire as a map.

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
            raise TypeError(f"{type(self).__name__} lacks or does not know: {names}")
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
        """The msgpack-able form: a map of the field names to plain values."""
        return dict(self.__dict__)

    @classmethod
    def from_wire(cls, fields: Mapping[str, object]) -> Self:
        """The record in `fields`.

        Raises:
            DriverError: code CORRUPT, a field is missing or of another type.
        """
        values = dict(cls._defaults)
        for name, kinds in cls._kinds.items():
            if name in fields:
                values[name] = fields[name]
            # Not isinstance: True would pass for a number.
            if name not in values or type(values[name]) not in kinds:
                raise DriverError(
                    f"a {cls.__name__} from another process of the driver does not hold",
                    details=f"{name} is not {cls.__annotations__[name]}",
                    resolution="restart the driver; both ends must speak the same version",
                    code=Code.CORRUPT,
                )
        return cls(**values)


class WorkerSpec(Record):
    """What the launcher needs to know to fork a task's worker.

    Attributes:
        name: the container id.
        dir: the task's state directory, absolute, 0700, made by the plugin.
        stdout: path of the FIFO that takes the task's output; "" or /dev/null: no keeper.
        stderr: likewise.
        log_buffer_bytes: what each FIFO may hold while nobody reads it.
        log_drops: whether the oldest of it is dropped then, or the task waits.
        log_patience_ms: how long nobody has to read until that is taken for a stall.
        stdout_source: path of the FIFO that the shim writes to where that is another; the worker
            carries what comes on to `stdout`.
        stderr_source: likewise.
        holds_logs: whether the worker goes on for a while when its plugin dies before it has
            named the shim, and holds the write ends of the logs: the start may be made again with
            the same readers.
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


class ShimTarget(Record):
    """What a worker is told to watch.

    Attributes:
        address: as containerd wrote it: unix://PATH, or the name of an abstract socket.
        api: version of the shim's Task service, 2 or 3.
        namespace: containerd's namespace of the container.
        container_id: the container's id.
    """

    address: str
    api: int
    namespace: str
    container_id: str


class ExitRecord(Record):
    """How a task ended.

    Attributes:
        code: exit status; 128 plus the signal's number where a signal ended it.
        at_ns: when, in ns since the epoch.
        oom_kills: how many processes of the task the kernel killed for memory.
        oom_killed: whether such a kill ended the task; None where the worker does not judge, which
            is of an older release.
        lost: True when the shim vanished without an answer; code is LOST_CODE then.
        reason: a sentence where lost, else "".
    """

    code: int
    at_ns: int
    oom_kills: int = 0
    oom_killed: bool | None = None
    lost: bool = False
    reason: str = ""


class LogState(Record):
    """How a log FIFO is read. Told when that changes, and again to whoever says hello.

    Attributes:
        stream: stdout or stderr.
        state: READING again; STALLED: nobody reads; DROPPING, BLOCKED: and there is no more room.
        kept: bytes that wait for a reader.
        dropped: bytes dropped since somebody read last and a plugin was told so.
        limit: bytes of room that the kernel gives.
        wanted: bytes of room that the plugin asked for.
    """

    stream: str
    state: str
    kept: int
    dropped: int
    limit: int
    wanted: int


class Sample(Record):
    """One reading of a task's cgroup. Bytes and ns; None where the kernel does not tell.

    CPU times count from the creation of the cgroup. rss, cache and swap are parts of usage on v1.
    t_ns is by the clock of the epoch, which may be set; m_ns by one that only goes on.
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
