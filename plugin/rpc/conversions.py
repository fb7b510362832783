"""Conversions between Nomad's protobuf messages and the dataclasses of `actors.model.nomad`.

Every answer has all nested messages. Nomad dereferences nested messages without a check, and a
missing message ends the whole agent (plugins/drivers/utils.go, client.go).
"""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from actors.model import nomad
from plugin.texts import plain
from proto.errors import Code, DriverError
from proto.nomad import driver_pb2, shared_structs_pb2

_Cpu = driver_pb2.CPUUsage
_Memory = driver_pb2.MemoryUsage
# The last second of the year 9999: the limit of a protobuf Timestamp, and of its format in Go.
_LAST_NS = 253402300799 * 10**9
_LONGEST_S = 366 * 24 * 3600.0
_MAX_TERMINAL = 2**16 - 1


def read_task_config(message: driver_pb2.TaskConfig) -> nomad.TaskConfig:
    """Reads a TaskConfig, without its driver config: `plugin.options` reads the driver config.

    Raises:
        DriverError: code INVALID, the task has no id.
    """
    if not message.id:
        raise DriverError("the request has no task, or a task without an id", code=Code.INVALID)
    return nomad.TaskConfig(
        id=message.id,
        name=message.name,
        alloc_id=message.alloc_id,
        job_id=message.job_id,
        job_name=message.job_name,
        # Nomad 2.0 fills the field only for its own drivers, the variable for all.
        parent_job_id=message.parent_job_id or message.env.get("NOMAD_JOB_PARENT_ID", ""),
        task_group_name=message.task_group_name,
        namespace=message.namespace,
        node_name=message.node_name,
        node_id=message.node_id,
        env=dict(message.env),
        device_env=dict(message.device_env),
        resources=_resources(message.resources),
        mounts=tuple(map(_mount, message.mounts)),
        devices=tuple(map(_device, message.devices)),
        user=message.user,
        alloc_dir=message.alloc_dir,
        stdout_path=message.stdout_path,
        stderr_path=message.stderr_path,
        network=_network(message),
        dns=_dns(message),
    )


def _mount(message: driver_pb2.Mount) -> nomad.MountConfig:
    return nomad.MountConfig(
        task_path=message.task_path,
        host_path=message.host_path,
        readonly=message.readonly,
        propagation_mode=message.propagation_mode,
        selinux_label=message.selinux_label,
        request_name=message.request_name,
    )


def _device(message: driver_pb2.Device) -> nomad.DeviceConfig:
    return nomad.DeviceConfig(
        task_path=message.task_path,
        host_path=message.host_path,
        cgroup_permissions=message.cgroup_permissions,
    )


def _resources(message: driver_pb2.Resources) -> nomad.Resources:
    linux, memory = message.linux_resources, message.allocated_resources.memory
    return nomad.Resources(
        cpu_shares=linux.cpu_shares,
        memory_mb=memory.memory_mb,
        memory_max_mb=memory.memory_max_mb,
        memory_limit_bytes=linux.memory_limit_bytes,
        percent_ticks=linux.PercentTicks,
        cpuset_cpus=linux.cpuset_cpus,
        cpuset_cgroup=linux.cpuset_cgroup,
        ports=tuple(
            nomad.PortMapping(label=p.label, value=p.value, to=p.to, host_ip=p.host_ip)
            for p in message.ports
        ),
    )


def _network(message: driver_pb2.TaskConfig) -> nomad.NetworkIsolation | None:
    """Returns the alloc's network; None in mode host, in which Nomad creates no namespace."""
    spec = message.network_isolation_spec
    if not message.HasField("network_isolation_spec") or not spec.path:
        return None
    return nomad.NetworkIsolation(
        mode=spec.mode,
        path=spec.path,
        labels=dict(spec.labels),
        hostname=spec.hostsConfig.hostname,
        address=spec.hostsConfig.address,
    )


def _dns(message: driver_pb2.TaskConfig) -> nomad.DnsConfig | None:
    if not message.HasField("dns"):
        return None
    dns = message.dns
    return nomad.DnsConfig(
        servers=tuple(dns.servers), searches=tuple(dns.searches), options=tuple(dns.options)
    )


def _exit_result(result: nomad.ExitResult) -> driver_pb2.ExitResult:
    return driver_pb2.ExitResult(
        exit_code=_int32(result.exit_code),
        signal=_int32(result.signal),
        oom_killed=result.oom_killed,
    )


def wait_response(result: nomad.ExitResult) -> driver_pb2.WaitTaskResponse:
    """Builds the answer to WaitTask, which always has a result."""
    return driver_pb2.WaitTaskResponse(result=_exit_result(result), err=plain(result.error))


def exec_response(done: nomad.ExecResult) -> driver_pb2.ExecTaskResponse:
    """Builds the answer to ExecTask, which always has a result."""
    return driver_pb2.ExecTaskResponse(
        stdout=done.stdout, stderr=done.stderr, result=_exit_result(done.exit)
    )


def _network_override(network: nomad.NetworkOverride | None) -> driver_pb2.NetworkOverride | None:
    if network is None:
        return None
    return driver_pb2.NetworkOverride(
        port_map=dict(network.port_map),
        addr=network.addr,
        auto_advertise=network.auto_advertise,
    )


def start_response(
    task: driver_pb2.TaskConfig, answer: nomad.StartedTask
) -> driver_pb2.StartTaskResponse:
    """Builds the answer to StartTask.

    The handle has the config of the request: Nomad does not recover a task without the config.
    """
    return driver_pb2.StartTaskResponse(
        result=driver_pb2.StartTaskResponse.SUCCESS,
        handle=driver_pb2.TaskHandle(
            version=answer.handle_version,
            config=task,
            state=driver_pb2.RUNNING,
            driver_state=answer.driver_state,
        ),
        network_override=_network_override(answer.network),
    )


def network_response(
    network: nomad.NetworkIsolation, *, created: bool
) -> driver_pb2.CreateNetworkResponse:
    """Builds the answer to CreateNetwork; `created` is False for a network of an earlier call."""
    return driver_pb2.CreateNetworkResponse(
        isolation_spec=driver_pb2.NetworkIsolationSpec(
            mode=driver_pb2.NetworkIsolationSpec.NetworkIsolationMode.Name(network.mode),
            path=network.path,
            labels=dict(network.labels),
        ),
        created=created,
    )


def inspect_response(status: nomad.TaskStatus) -> driver_pb2.InspectTaskResponse:
    """Builds the answer to InspectTask."""
    return driver_pb2.InspectTaskResponse(
        task=driver_pb2.TaskStatus(
            id=status.id,
            name=status.name,
            state=driver_pb2.TaskState.Name(status.state.value),
            started_at=_timestamp(status.started_at_ns),
            completed_at=_timestamp(status.completed_at_ns),
            result=_exit_result(status.result),
        ),
        driver=driver_pb2.TaskDriverStatus(attributes=dict(status.driver_attributes)),
        network_override=_network_override(status.network),
    )


def stats_response(sample: nomad.TaskUsage) -> driver_pb2.TaskStatsResponse:
    """Builds a message of TaskStats; `measured_fields` names the known figures, others are 0."""
    resources = driver_pb2.TaskResourceUsage(cpu=_cpu(sample.cpu), memory=_memory(sample.memory))
    return driver_pb2.TaskStatsResponse(
        stats=driver_pb2.TaskStats(
            id=sample.task_id,
            timestamp=_timestamp(sample.timestamp_ns),
            agg_resource_usage=resources,
        )
    )


def _cpu(cpu: nomad.CpuUsage) -> driver_pb2.CPUUsage:
    measured = [_Cpu.SYSTEM_MODE, _Cpu.USER_MODE, _Cpu.TOTAL_TICKS, _Cpu.PERCENT]
    if cpu.throttled_periods is not None:
        measured.append(_Cpu.THROTTLED_PERIODS)
    if cpu.throttled_ns is not None:
        measured.append(_Cpu.THROTTLED_TIME)
    return driver_pb2.CPUUsage(
        system_mode=cpu.system_percent,
        user_mode=cpu.user_percent,
        total_ticks=cpu.total_ticks,
        throttled_periods=_uint64(cpu.throttled_periods or 0),
        throttled_time=_uint64(cpu.throttled_ns or 0),
        percent=cpu.percent,
        measured_fields=measured,
    )


def _memory(memory: nomad.MemoryUsage) -> driver_pb2.MemoryUsage:
    figures = (
        ("rss", memory.rss, _Memory.RSS),
        ("cache", memory.cache, _Memory.CACHE),
        ("max_usage", memory.max_usage, _Memory.MAX_USAGE),
        ("kernel_usage", memory.kernel_usage, _Memory.KERNEL_USAGE),
        ("kernel_max_usage", memory.kernel_max_usage, _Memory.KERNEL_MAX_USAGE),
        ("usage", memory.usage, _Memory.USAGE),
        ("swap", memory.swap, _Memory.SWAP),
    )
    known = [(name, value, field) for name, value, field in figures if value is not None]
    return driver_pb2.MemoryUsage(
        measured_fields=[field for _, _, field in known],
        **{name: _uint64(value) for name, value, _ in known},
    )


def event_message(item: nomad.TaskEvent) -> driver_pb2.DriverTaskEvent:
    """Builds a message of TaskEvents."""
    return driver_pb2.DriverTaskEvent(
        task_id=item.task_id,
        alloc_id=item.alloc_id,
        task_name=item.task_name,
        timestamp=_timestamp(item.timestamp_ns),
        message=plain(item.message),
        annotations={plain(key): plain(value) for key, value in item.annotations.items()},
    )


def fingerprint_response(fingerprint: nomad.Fingerprint) -> driver_pb2.FingerprintResponse:
    """Builds a message of Fingerprint: health and attributes of the driver."""
    return driver_pb2.FingerprintResponse(
        attributes={name: _attribute(value) for name, value in fingerprint.attributes.items()},
        health=driver_pb2.FingerprintResponse.HealthState.Name(fingerprint.health.value),
        health_description=plain(fingerprint.description),
    )


def failed_fingerprint_response(error: Exception) -> driver_pb2.FingerprintResponse:
    """Builds a message of Fingerprint after a failed fingerprint: unhealthy; running tasks stay."""
    return driver_pb2.FingerprintResponse(
        health=driver_pb2.FingerprintResponse.UNHEALTHY,
        health_description=plain(f"the driver's fingerprint failed: {error}"),
    )


def _attribute(value: float | str) -> shared_structs_pb2.Attribute:
    if isinstance(value, bool):
        return shared_structs_pb2.Attribute(bool_val=value)
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return shared_structs_pb2.Attribute(int_val=value)
    if isinstance(value, float):
        return shared_structs_pb2.Attribute(float_val=value)
    return shared_structs_pb2.Attribute(string_val=plain(str(value)))


def read_exec_input(message: driver_pb2.ExecTaskStreamingRequest) -> nomad.ExecInput:
    """Reads a message of an exec client; an empty message is a heartbeat."""
    resize = None
    if message.HasField("tty_size"):
        size = message.tty_size
        if 0 < size.height <= _MAX_TERMINAL and 0 < size.width <= _MAX_TERMINAL:
            resize = (size.height, size.width)
    return nomad.ExecInput(stdin=message.stdin.data, stdin_close=message.stdin.close, resize=resize)


def exec_stream_response(output: nomad.ExecOutput) -> driver_pb2.ExecTaskStreamingResponse:
    """Builds a message to an exec client; Nomad's CLI expects the exit alone in a message."""
    message = driver_pb2.ExecTaskStreamingResponse()
    if output.exit is not None:
        message.exited = True
        message.result.CopyFrom(_exit_result(output.exit))
        return message
    if output.stdout or output.stdout_close:
        message.stdout.data, message.stdout.close = output.stdout, output.stdout_close
    if output.stderr or output.stderr_close:
        message.stderr.data, message.stderr.close = output.stderr, output.stderr_close
    return message


def _timestamp(nanoseconds: int) -> Timestamp:
    """Builds a timestamp; 0 is the epoch, never an absent timestamp."""
    message = Timestamp()
    message.FromNanoseconds(min(max(0, nanoseconds), _LAST_NS))
    return message


def read_seconds(duration: Duration) -> float:
    """Returns the seconds of a duration, at least 0 and at most a year."""
    return min(_LONGEST_S, max(0.0, duration.seconds + duration.nanos / 1e9))


def _int32(number: int) -> int:
    """Wraps a number as C does: containerd's exit status is a uint32, Nomad's an int32."""
    return (number + 2**31) % 2**32 - 2**31


def _uint64(number: int) -> int:
    return min(max(0, number), 2**64 - 1)
