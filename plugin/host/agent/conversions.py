"""Dataclasses into Nomad's messages and back: the agent's half of `plugin.rpc.conversions`."""

from __future__ import annotations

import os
import re
from pathlib import Path

from actors.model import nomad
from proto.nomad import base_pb2, driver_pb2

_Memory = driver_pb2.MemoryUsage
_Cpu = driver_pb2.CPUUsage


def nomad_config(cpuinfo: Path = Path("/proc/cpuinfo")) -> base_pb2.NomadConfig:
    """The node as an agent describes it since Nomad 1.7: its cores and their speed.

    Where the kernel names no speed, as on arm64, the cores go without, and ticks are 0.
    """
    try:
        text = cpuinfo.read_text()
    except OSError:
        text = ""
    found: list[str] = re.findall(r"^cpu MHz\s*: ([\d.]+)", text, re.MULTILINE)
    mhz = round(max(map(float, found), default=0))
    cores = [
        base_pb2.ClientTopologyCore(core_id=number, guess_speed=mhz)
        for number in range(os.cpu_count() or 1)
    ]
    return base_pb2.NomadConfig(
        driver=base_pb2.NomadDriverConfig(Topology=base_pb2.ClientTopology(cores=cores))
    )


def task_config(task: nomad.TaskConfig, packed: bytes) -> driver_pb2.TaskConfig:
    """A task as an agent sends it; `packed` is its driver config."""
    resources = task.resources
    message = driver_pb2.TaskConfig(
        id=task.id,
        name=task.name,
        msgpack_driver_config=packed,
        env=dict(task.env),
        device_env=dict(task.device_env),
        resources=driver_pb2.Resources(
            allocated_resources=driver_pb2.AllocatedTaskResources(
                cpu=driver_pb2.AllocatedCpuResources(cpu_shares=resources.cpu_shares),
                memory=driver_pb2.AllocatedMemoryResources(
                    memory_mb=resources.memory_mb, memory_max_mb=resources.memory_max_mb
                ),
            ),
            linux_resources=driver_pb2.LinuxResources(
                cpu_shares=resources.cpu_shares,
                memory_limit_bytes=resources.memory_limit_bytes,
                PercentTicks=resources.percent_ticks,
                cpuset_cpus=resources.cpuset_cpus,
            ),
        ),
        mounts=[
            driver_pb2.Mount(
                task_path=m.task_path,
                host_path=m.host_path,
                readonly=m.readonly,
                propagation_mode=m.propagation_mode,
            )
            for m in task.mounts
        ],
        devices=[
            driver_pb2.Device(
                task_path=d.task_path,
                host_path=d.host_path,
                cgroup_permissions=d.cgroup_permissions,
            )
            for d in task.devices
        ],
        user=task.user,
        alloc_dir=task.alloc_dir,
        stdout_path=task.stdout_path,
        stderr_path=task.stderr_path,
        task_group_name=task.task_group_name,
        job_name=task.job_name,
        alloc_id=task.alloc_id,
        job_id=task.job_id,
        namespace=task.namespace,
        node_name=task.node_name,
        node_id=task.node_id,
    )
    message.resources.ports.extend(
        driver_pb2.PortMapping(label=p.label, value=p.value, to=p.to, host_ip=p.host_ip)
        for p in resources.ports
    )
    if task.network is not None:
        message.network_isolation_spec.mode = driver_pb2.NetworkIsolationSpec.GROUP
        message.network_isolation_spec.path = task.network.path
    if task.dns is not None:
        message.dns.SetInParent()
        message.dns.servers.extend(task.dns.servers)
        message.dns.searches.extend(task.dns.searches)
        message.dns.options.extend(task.dns.options)
    return message


def exit_result(answer: driver_pb2.WaitTaskResponse) -> nomad.ExitResult:
    """WaitTask's answer."""
    result = answer.result
    return nomad.ExitResult(
        exit_code=result.exit_code,
        signal=result.signal,
        oom_killed=result.oom_killed,
        error=answer.err,
    )


def fingerprint(message: driver_pb2.FingerprintResponse) -> nomad.Fingerprint:
    """A fingerprint."""
    attributes: dict[str, bool | int | float | str] = {}
    for name, value in message.attributes.items():
        kind = value.WhichOneof("value")
        attributes[name] = getattr(value, kind) if kind else ""
    return nomad.Fingerprint(
        health=nomad.Health(message.health),
        description=message.err or message.health_description,
        attributes=attributes,
    )


def event(message: driver_pb2.DriverTaskEvent) -> nomad.TaskEvent:
    """An event."""
    return nomad.TaskEvent(
        task_id=message.task_id,
        alloc_id=message.alloc_id,
        task_name=message.task_name,
        timestamp_ns=message.timestamp.ToNanoseconds(),
        message=message.message,
        annotations=dict(message.annotations),
    )


def network_override(message: driver_pb2.NetworkOverride) -> nomad.NetworkOverride | None:
    """The task's own network; None where the driver reports none."""
    if not message.addr:
        return None
    return nomad.NetworkOverride(
        addr=message.addr,
        auto_advertise=message.auto_advertise,
        port_map=dict(message.port_map),
    )


def usage(message: driver_pb2.TaskStatsResponse) -> nomad.TaskUsage:
    """A sample; what is not measured is None."""
    stats = message.stats
    cpu, memory = stats.agg_resource_usage.cpu, stats.agg_resource_usage.memory
    seen = set(memory.measured_fields)

    def known(name: str, field: int) -> int | None:
        return int(getattr(memory, name)) if field in seen else None

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
