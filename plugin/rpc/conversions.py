"""Between Nomad's protobuf messages and the dataclasses of `actors.model.nomad`.

No answer is ever half-filled: Nomad dereferences nested messages without looking, and a missing
one ends the whole agent (plugins/drivers/utils.go, client.go).
"""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from actors.model import nomad
from plugin.sanitize import plain
from proto.errors import Code, DriverError
from proto.nomad import driver_pb2, shared_structs_pb2

_Cpu = driver_pb2.CPUUsage
_Memory = driver_pb2.MemoryUsage
# The last second that a protobuf Timestamp, and Go's formatting of it, can hold: year 9999.
_LAST_NS = 253402300799 * 10**9
_LONGEST_S = 366 * 24 * 3600.0
_MAX_TERMINAL = 2**16 - 1


def task_config(message: driver_pb2.TaskConfig) -> nomad.TaskConfig:
    """Nomad's TaskConfig; its driver config is read elsewhere.

    Raises:
        DriverError: code INVALID, it has no id, so it is no task.
    """
    if not message.id:
        raise DriverError("the request has no task, or one without an id", code=Code.INVALID)
    return nomad.TaskConfig(
        id=message.id,
        name=message.name,
        alloc_id=message.alloc_id,
        job_id=message.job_id,
        job_name=message.job_name,
        task_group_name=message.task_group_name,
        namespace=message.namespace,
        node_name=message.node_name,
        node_id=message.node_id,
        env=dict(message.env),
        device_env=dict(message.device_env),
        resources=_resources(message.resources),
        mounts=tuple(
            nomad.MountConfig(
                task_path=mount.task_path,
                host_path=mount.host_path,
                readonly=mount.readonly,
                propagation_mode=mount.propagation_mode,
            )
            for mount in message.mounts
        ),
        devices=tuple(
            nomad.DeviceConfig(
                task_path=device.task_path,
                host_path=device.host_path,
                cgroup_permissions=device.cgroup_permissions,
            )
            for device in message.devices
        ),
        user=message.user,
        alloc_dir=message.alloc_dir,
        stdout_path=message.stdout_path,
        stderr_path=message.stderr_path,
        network=_network(message),
        dns=_dns(message),
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
    """None where Nomad made no network namespace for the alloc: the job's mode is host."""
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


def exit_result(result: nomad.ExitResult) -> driver_pb2.ExitResult:
    """Code, signal and OOM."""
    return driver_pb2.ExitResult(
        exit_code=_int32(result.exit_code),
        signal=_int32(result.signal),
        oom_killed=result.oom_killed,
    )


def waited(result: nomad.ExitResult) -> driver_pb2.WaitTaskResponse:
    """WaitTask's answer; there is always a result."""
    return driver_pb2.WaitTaskResponse(result=exit_result(result), err=plain(result.error))


def exec_result(done: nomad.ExecResult) -> driver_pb2.ExecTaskResponse:
    """ExecTask's answer; there is always a result."""
    return driver_pb2.ExecTaskResponse(
        stdout=done.stdout, stderr=done.stderr, result=exit_result(done.exit)
    )


def network_override(network: nomad.NetworkOverride | None) -> driver_pb2.NetworkOverride | None:
    """The task's own network, if the driver reports one."""
    if network is None:
        return None
    return driver_pb2.NetworkOverride(
        port_map=dict(network.port_map),
        addr=network.addr,
        auto_advertise=network.auto_advertise,
    )


def started(task: driver_pb2.TaskConfig, answer: nomad.StartedTask) -> driver_pb2.StartTaskResponse:
    """StartTask's answer. The request's own config goes back: without it Nomad never recovers."""
    return driver_pb2.StartTaskResponse(
        result=driver_pb2.StartTaskResponse.SUCCESS,
        handle=driver_pb2.TaskHandle(
            version=answer.handle_version,
            config=task,
            state=driver_pb2.RUNNING,
            driver_state=answer.driver_state,
        ),
        network_override=network_override(answer.network),
    )


def inspected(status: nomad.TaskStatus) -> driver_pb2.InspectTaskResponse:
    """InspectTask's answer."""
    return driver_pb2.InspectTaskResponse(
        task=driver_pb2.TaskStatus(
            id=status.id,
            name=status.name,
            state=driver_pb2.TaskState.Name(status.state.value),
            started_at=timestamp(status.started_at_ns),
            completed_at=timestamp(status.completed_at_ns),
            result=exit_result(status.result),
        ),
        driver=driver_pb2.TaskDriverStatus(attributes=dict(status.driver_attributes)),
        network_override=network_override(status.network),
    )


def usage(sample: nomad.TaskUsage) -> driver_pb2.TaskStatsResponse:
    """One sample; measured_fields names what the kernel told, the rest reads 0."""
    resources = driver_pb2.TaskResourceUsage(cpu=_cpu(sample.cpu), memory=_memory(sample.memory))
    return driver_pb2.TaskStatsResponse(
        stats=driver_pb2.TaskStats(
            id=sample.task_id,
            timestamp=timestamp(sample.timestamp_ns),
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
    message = driver_pb2.MemoryUsage(measured_fields=[field for _, _, field in known])
    for name, value, _ in known:
        setattr(message, name, _uint64(value))
    return message


def event(item: nomad.TaskEvent) -> driver_pb2.DriverTaskEvent:
    """One event of a task."""
    return driver_pb2.DriverTaskEvent(
        task_id=item.task_id,
        alloc_id=item.alloc_id,
        task_name=item.task_name,
        timestamp=timestamp(item.timestamp_ns),
        message=plain(item.message),
        annotations={plain(key): plain(value) for key, value in item.annotations.items()},
    )


def fingerprint(look: nomad.Fingerprint) -> driver_pb2.FingerprintResponse:
    """The driver's health and attributes."""
    return driver_pb2.FingerprintResponse(
        attributes={name: _attribute(value) for name, value in look.attributes.items()},
        health=driver_pb2.FingerprintResponse.HealthState.Name(look.health.value),
        health_description=plain(look.description),
    )


def failed_fingerprint(error: Exception) -> driver_pb2.FingerprintResponse:
    """The health of a driver that could not say how it is. Running tasks stay."""
    return driver_pb2.FingerprintResponse(
        health=driver_pb2.FingerprintResponse.UNHEALTHY,
        health_description=plain(f"the driver cannot tell its health: {error}"),
    )


def _attribute(value: float | str) -> shared_structs_pb2.Attribute:
    if isinstance(value, bool):
        return shared_structs_pb2.Attribute(bool_val=value)
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return shared_structs_pb2.Attribute(int_val=value)
    if isinstance(value, float):
        return shared_structs_pb2.Attribute(float_val=value)
    return shared_structs_pb2.Attribute(string_val=plain(str(value)))


def exec_input(message: driver_pb2.ExecTaskStreamingRequest) -> nomad.ExecInput:
    """One message of an exec client; an empty one is its heartbeat."""
    resize = None
    if message.HasField("tty_size"):
        size = message.tty_size
        if 0 < size.height <= _MAX_TERMINAL and 0 < size.width <= _MAX_TERMINAL:
            resize = (size.height, size.width)
    return nomad.ExecInput(stdin=message.stdin.data, stdin_close=message.stdin.close, resize=resize)


def exec_output(output: nomad.ExecOutput) -> driver_pb2.ExecTaskStreamingResponse:
    """One message to an exec client; the CLI wants the exit alone in its own."""
    message = driver_pb2.ExecTaskStreamingResponse()
    if output.exit is not None:
        message.exited = True
        message.result.CopyFrom(exit_result(output.exit))
        return message
    if output.stdout or output.stdout_close:
        message.stdout.data, message.stdout.close = output.stdout, output.stdout_close
    if output.stderr or output.stderr_close:
        message.stderr.data, message.stderr.close = output.stderr, output.stderr_close
    return message


def timestamp(nanoseconds: int) -> Timestamp:
    """A protobuf timestamp; 0 stays the epoch, never absent."""
    message = Timestamp()
    message.FromNanoseconds(min(max(0, nanoseconds), _LAST_NS))
    return message


def seconds(duration: Duration) -> float:
    """Seconds of a protobuf duration, never negative and a year at most."""
    return min(_LONGEST_S, max(0.0, duration.seconds + duration.nanos / 1e9))


def _int32(number: int) -> int:
    """As C would store it: containerd's exit status is a uint32, Nomad's an int32."""
    return (number + 2**31) % 2**32 - 2**31


def _uint64(number: int) -> int:
    return min(max(0, number), 2**64 - 1)
