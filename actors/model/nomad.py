"""Nomad's requests and answers as plain frozen dataclasses; protobuf stays in the plugin's RPC."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import field
from enum import Enum

from proto.values import dataclass


class TaskState(Enum):
    """Nomad's view of a task. Values are the wire's numbers."""

    UNKNOWN = 0
    RUNNING = 1
    EXITED = 2


class Health(Enum):
    """Health of the driver in a fingerprint. Values are the wire's numbers."""

    UNDETECTED = 0
    UNHEALTHY = 1
    HEALTHY = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PortMapping:
    """One port of the group's network: host port `value`, container port `to`."""

    label: str
    value: int
    to: int
    host_ip: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Nomad's resources of a task.

    memory_mb, memory_max_mb: from the job; 0 is not set, -1 is no hard limit.
    memory_limit_bytes: the larger of both.
    cpu_shares: MHz.
    percent_ticks: the share of the node's usable MHz, 0 to 1.
    """

    cpu_shares: int = 0
    memory_mb: int = 0
    memory_max_mb: int = 0
    memory_limit_bytes: int = 0
    percent_ticks: float = 0.0
    cpuset_cpus: str = ""
    cpuset_cgroup: str = ""
    ports: tuple[PortMapping, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MountConfig:
    """Nomad's mount: a volume_mount of the job, resolved by Nomad to a path of the node.

    selinux_label: `z`, `Z` or empty, from a Nomad of 1.8 or newer.
    request_name: the name of the group's volume request, from a Nomad of 2.0 or newer.
    """

    task_path: str
    host_path: str
    readonly: bool
    propagation_mode: str = ""
    selinux_label: str = ""
    request_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceConfig:
    """A device of a Nomad device plugin."""

    task_path: str
    host_path: str
    cgroup_permissions: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsConfig:
    """The group's `network.dns` block."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkIsolation:
    """Nomad's network namespace for the allocation: `path` below /var/run/netns."""

    mode: int
    path: str
    labels: Mapping[str, str] = field(default_factory=dict)
    hostname: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskConfig:
    """Nomad's TaskConfig without the driver's own options.

    id: `<alloc>/<task>/<8 hex>`, new for every start.
    parent_job_id: the job of which a dispatched or periodic job is a run; else empty.
    env: NOMAD_* and the job's env.
    stdout_path, stderr_path: empty or /dev/null where Nomad collects no logs.
    Paths are paths of the node.
    """

    id: str
    name: str
    alloc_id: str = ""
    job_id: str = ""
    job_name: str = ""
    parent_job_id: str = ""
    task_group_name: str = ""
    namespace: str = ""
    node_name: str = ""
    node_id: str = ""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    device_env: Mapping[str, str] = field(default_factory=dict, repr=False)
    resources: Resources = field(default_factory=Resources)
    mounts: tuple[MountConfig, ...] = ()
    devices: tuple[DeviceConfig, ...] = ()
    user: str = ""
    alloc_dir: str = ""
    stdout_path: str = ""
    stderr_path: str = ""
    network: NetworkIsolation | None = None
    dns: DnsConfig | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOverride:
    """The driver's report of the task's own network."""

    addr: str
    auto_advertise: bool
    port_map: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedTask:
    """The answer of StartTask: the state to put into Nomad's handle, and the network if any."""

    handle_version: int
    driver_state: bytes
    network: NetworkOverride | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitResult:
    """The end of a task. signal is code - 128 where a signal killed the task, else 0."""

    exit_code: int
    signal: int = 0
    oom_killed: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStatus:
    """The answer of InspectTask. Times are nanoseconds since the epoch.

    completed_at_ns is 0 while the task runs.
    """

    id: str
    name: str
    state: TaskState
    started_at_ns: int
    completed_at_ns: int
    result: ExitResult
    driver_attributes: Mapping[str, str]
    network: NetworkOverride | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuUsage:
    """CPU use of a task: 100 percent is one busy core, total_ticks are MHz.

    A field is None where the kernel has no figure.
    """

    percent: float
    user_percent: float
    system_percent: float
    total_ticks: float
    throttled_periods: int | None = None
    throttled_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUsage:
    """Bytes; None where the kernel has no figure."""

    usage: int | None = None
    rss: int | None = None
    cache: int | None = None
    swap: int | None = None
    max_usage: int | None = None
    kernel_usage: int | None = None
    kernel_max_usage: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskUsage:
    """One sample of TaskStats; timestamp_ns is nanoseconds of the epoch."""

    task_id: str
    timestamp_ns: int
    cpu: CpuUsage
    memory: MemoryUsage


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEvent:
    """One line of a task's event list in Nomad."""

    task_id: str
    alloc_id: str
    task_name: str
    timestamp_ns: int
    message: str
    annotations: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def now(cls, task: TaskConfig, message: str) -> TaskEvent:
        """Returns an event with the present time."""
        return cls(
            task_id=task.id,
            alloc_id=task.alloc_id,
            task_name=task.name,
            timestamp_ns=time.time_ns(),
            message=message,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """State of the driver on this node; attribute values are bool, int, float or str."""

    health: Health
    description: str
    attributes: Mapping[str, bool | int | float | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecResult:
    """The answer of ExecTask."""

    stdout: bytes
    stderr: bytes
    exit: ExitResult


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecInput:
    """One message from the exec client; all empty is a heartbeat. resize is (height, width)."""

    stdin: bytes = b""
    stdin_close: bool = False
    resize: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecOutput:
    """One message to the exec client. The last one has `exit` and nothing else."""

    stdout: bytes = b""
    stderr: bytes = b""
    stdout_close: bool = False
    stderr_close: bool = False
    exit: ExitResult | None = None
