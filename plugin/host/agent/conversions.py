"""Conversions of dataclasses into Nomad's messages and back: the counterpart of `plugin.rpc`."""

from __future__ import annotations

import os
import re
from pathlib import Path

from actors.model import nomad
from proto.nomad import base_pb2, driver_pb2

_Memory = driver_pb2.MemoryUsage


def nomad_config(cpuinfo: Path = Path("/proc/cpuinfo")) -> base_pb2.NomadConfig:
    """Builds the description of the node that an agent sends since Nomad 1.7: cores and speed.

    If the kernel states no speed, as on arm64, the cores have none, and ticks are 0.
    """
    try:
        text = cpuinfo.read_text()
    except OSError:
        text = ""
    speeds: list[str] = re.findall(r"^cpu MHz\s*: ([\d.]+)", text, re.MULTILINE)
    mhz = round(max(map(float, speeds), default=0))
    cores = [
        base_pb2.ClientTopologyCore(core_id=number, guess_speed=mhz)
        for number in range(os.cpu_count() or 1)
    ]
    return base_pb2.NomadConfig(
        driver=base_pb2.NomadDriverConfig(Topology=base_pb2.ClientTopology(cores=cores))
    )


def task_message(task: nomad.TaskConfig, packed: bytes) -> driver_pb2.TaskConfig:
    """Builds the message for a task.

    Args:
        task: the task.
        packed: msgpack of the driver config.
    """
    message = driver_pb2.TaskConfig(
        id=task.id,
        name=task.name,
        msgpack_driver_config=packed,
        env=dict(task.env),
        device_env=dict(task.device_env),
        resources=_resources(task.resources),
        mounts=map(_mount, task.mounts),
        devices=map(_device, task.devices),
        user=task.user,
        alloc_dir=task.alloc_dir,
        stdout_path=task.stdout_path,
        stderr_path=task.stderr_path,
        task_group_name=task.task_group_name,
        job_name=task.job_name,
        parent_job_id=task.parent_job_id,
        alloc_id=task.alloc_id,
        job_id=task.job_id,
        namespace=task.namespace,
        node_name=task.node_name,
        node_id=task.node_id,
    )
    if task.network is not None:
        message.network_isolation_spec.mode = driver_pb2.NetworkIsolationSpec.GROUP
        message.network_isolation_spec.path = task.network.path
        message.network_isolation_spec.labels.update(task.network.labels)
    if task.dns is not None:
        message.dns.SetInParent()
        message.dns.servers.extend(task.dns.servers)
        message.dns.searches.extend(task.dns.searches)
        message.dns.options.extend(task.dns.options)
    return message


def _resources(resources: nomad.Resources) -> driver_pb2.Resources:
    allocated = driver_pb2.AllocatedTaskResources(
        cpu=driver_pb2.AllocatedCpuResources(cpu_shares=resources.cpu_shares),
        memory=driver_pb2.AllocatedMemoryResources(
            memory_mb=resources.memory_mb, memory_max_mb=resources.memory_max_mb
        ),
    )
    linux = driver_pb2.LinuxResources(
        cpu_shares=resources.cpu_shares,
        memory_limit_bytes=resources.memory_limit_bytes,
        PercentTicks=resources.percent_ticks,
        cpuset_cpus=resources.cpuset_cpus,
    )
    ports = [
        driver_pb2.PortMapping(label=port.label, value=port.value, to=port.to, host_ip=port.host_ip)
        for port in resources.ports
    ]
    return driver_pb2.Resources(allocated_resources=allocated, linux_resources=linux, ports=ports)


def _mount(mount: nomad.MountConfig) -> driver_pb2.Mount:
    return driver_pb2.Mount(
        task_path=mount.task_path,
        host_path=mount.host_path,
        readonly=mount.readonly,
        propagation_mode=mount.propagation_mode,
        selinux_label=mount.selinux_label,
        request_name=mount.request_name,
    )


def _device(device: nomad.DeviceConfig) -> driver_pb2.Device:
    return driver_pb2.Device(
        task_path=device.task_path,
        host_path=device.host_path,
        cgroup_permissions=device.cgroup_permissions,
    )


def read_exit(answer: driver_pb2.WaitTaskResponse) -> nomad.ExitResult:
    """Reads the answer to WaitTask."""
    result = answer.result
    return nomad.ExitResult(
        exit_code=result.exit_code,
        signal=result.signal,
        oom_killed=result.oom_killed,
        error=answer.err,
    )


def read_fingerprint(message: driver_pb2.FingerprintResponse) -> nomad.Fingerprint:
    """Reads a message of Fingerprint."""
    attributes: dict[str, bool | int | float | str] = {}
    for name, value in message.attributes.items():
        kind = value.WhichOneof("value")
        attributes[name] = getattr(value, kind) if kind else ""
    return nomad.Fingerprint(
        health=nomad.Health(message.health),
        description=message.err or message.health_description,
        attributes=attributes,
    )


def read_event(message: driver_pb2.DriverTaskEvent) -> nomad.TaskEvent:
    """Reads a message of TaskEvents."""
    return nomad.TaskEvent(
        task_id=message.task_id,
        alloc_id=message.alloc_id,
        task_name=message.task_name,
        timestamp_ns=message.timestamp.ToNanoseconds(),
        message=message.message,
        annotations=dict(message.annotations),
    )


def read_network(message: driver_pb2.NetworkOverride) -> nomad.NetworkOverride | None:
    """Reads the task's network; None if the driver reports none."""
    if not message.addr:
        return None
    return nomad.NetworkOverride(
        addr=message.addr,
        auto_advertise=message.auto_advertise,
        port_map=dict(message.port_map),
    )


def read_usage(message: driver_pb2.TaskStatsResponse) -> nomad.TaskUsage:
    """Reads a message of TaskStats; figures that were not measured are None."""
    stats = message.stats
    cpu, memory = stats.agg_resource_usage.cpu, stats.agg_resource_usage.memory
    measured = set(memory.measured_fields)

    def known(name: str, field: int) -> int | None:
        return int(getattr(memory, name)) if field in measured else None

    return nomad.TaskUsage(
        task_id=stats.id,
        timestamp_ns=stats.timestamp.ToNanoseconds(),
        cpu=nomad.CpuUsage(
            percent=cpu.percent,
            user_percent=cpu.user_mode,
            system_percent=cpu.system_mode,
            total_ticks=cpu.total_ticks,
            throttled_periods=cpu.throttled_periods,
            throttled_ns=cpu.throttled_time,
        ),
        memory=nomad.MemoryUsage(
            usage=known("usage", _Memory.USAGE),
            rss=known("rss", _Memory.RSS),
            cache=known("cache", _Memory.CACHE),
            swap=known("swap", _Memory.SWAP),
            max_usage=known("max_usage", _Memory.MAX_USAGE),
            kernel_usage=known("kernel_usage", _Memory.KERNEL_USAGE),
            kernel_max_usage=known("kernel_max_usage", _Memory.KERNEL_MAX_USAGE),
        ),
    )
