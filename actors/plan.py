"""What a start will make, worked out before anything is made: pure, and where bad jobs fail."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from actors import identifiers, image_plan
from actors.image_wire import ImageReady, ImageRequest
from containerd import spec
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from actors.nomad_types import TaskConfig
    from actors.running_task import Services
    from actors.settings import TaskOptions
    from containerd.rootfs_users import ResolvedUser

# Nomad gives these where a task's logs are not collected.
_NO_LOG = frozenset({"", "/dev/null"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Names and places of one start. stdout and stderr are FIFOs, or both empty."""

    container_id: str
    directory: Path
    image: ImageRequest
    runtime: str
    stdout: str
    stderr: str
    labels: dict[str, str]


def make(services: Services, task: TaskConfig, options: TaskOptions) -> Plan:
    """The plan of a start.

    Raises:
        DriverError: code INVALID; the job asks for what cannot be.
    """
    settings = services.settings
    if not settings.enabled:
        raise DriverError(
            "the containerd driver is disabled on this node",
            resolution="set enabled = true in the plugin block",
            code=Code.DENIED,
        )
    if options.host_network and task.network is not None:
        raise DriverError(
            "host_network and bridge network mode are mutually exclusive, and only one of them"
            " should be set",
            code=Code.INVALID,
        )
    if options.command and options.entrypoint:
        raise DriverError(
            "Error in creating container: Both command and entrypoint are set."
            " Only one of them needs to be set.",
            code=Code.INVALID,
        )
    container = identifiers.container_id(task.alloc_id, task.name, cgroup_v2=services.cgroup_v2)
    stdout, stderr = _logs(task)
    return Plan(
        container_id=container,
        directory=identifiers.task_directory(services.state_dir, container),
        image=image_plan.request(services, task, options),
        runtime=settings.containerd_runtime,
        stdout=stdout,
        stderr=stderr,
        labels=identifiers.labels(task.id, task.alloc_id, task.name),
    )


def _logs(task: TaskConfig) -> tuple[str, str]:
    """Containerd refuses stdout without stderr, so both are real or both are empty."""
    stdout = "" if task.stdout_path in _NO_LOG else task.stdout_path
    stderr = "" if task.stderr_path in _NO_LOG else task.stderr_path
    if bool(stdout) != bool(stderr):
        return stdout or os.devnull, stderr or os.devnull
    return stdout, stderr


def spec_inputs(
    services: Services,
    task: TaskConfig,
    options: TaskOptions,
    image: ImageReady,
    user: ResolvedUser,
) -> spec.SpecInputs:
    """Everything that the OCI spec is built from."""
    alloc_id, name = task.alloc_id, task.name
    container = identifiers.container_id(alloc_id, name, cgroup_v2=services.cgroup_v2)
    resources = task.resources
    hard = resources.memory_limit_bytes if resources.memory_max_mb >= 0 else 0
    soft = resources.memory_mb * 1024 * 1024 if resources.memory_max_mb else 0
    return spec.SpecInputs(
        image_config=image.config,
        command=options.command,
        args=options.args,
        entrypoint=options.entrypoint,
        cwd=options.cwd,
        env={**task.device_env, **task.env},
        user=user,
        hostname=options.hostname or identifiers.hostname(alloc_id, name),
        cgroup_path=identifiers.cgroup_path(container, services.namespace),
        memory_limit_bytes=hard,
        memory_reservation_bytes=soft,
        cpu_shares=resources.cpu_shares,
        cpuset_cpus=resources.cpuset_cpus,
        mounts=mounts(task, options),
        netns_path=task.network.path if task.network else "",
        host_network=options.host_network,
        readonly_rootfs=options.readonly_rootfs,
        cgroup_v2=services.cgroup_v2,
    )


def mounts(task: TaskConfig, options: TaskOptions) -> tuple[spec.BindMount, ...]:
    """Binds of the alloc's directories, Nomad's volume mounts and the host's resolv.conf.

    /alloc/logs is read-only: a task that swaps its log FIFO for a link must not be possible.
    """
    found: list[spec.BindMount] = []
    task_dir = Path(task.alloc_dir) / task.name if task.alloc_dir else None
    if task_dir is not None:
        shared = Path(task.alloc_dir) / "alloc"
        for source, variable, fallback in (
            (shared, "NOMAD_ALLOC_DIR", "/alloc"),
            (task_dir / "local", "NOMAD_TASK_DIR", "/local"),
            (task_dir / "secrets", "NOMAD_SECRETS_DIR", "/secrets"),
        ):
            target = task.env.get(variable) or fallback
            found.append(spec.BindMount(source=str(source), target=target, readonly=False))
        logs = Path(task.env.get("NOMAD_ALLOC_DIR") or "/alloc") / "logs"
        found.append(spec.BindMount(source=str(shared / "logs"), target=str(logs), readonly=True))
    found += [
        spec.BindMount(source=volume.host_path, target=volume.task_path, readonly=volume.readonly)
        for volume in task.mounts
    ]
    if options.host_dns or options.host_network:
        found.append(
            spec.BindMount(source="/etc/resolv.conf", target="/etc/resolv.conf", readonly=True)
        )
    if options.host_network:
        found.append(spec.BindMount(source="/etc/hosts", target="/etc/hosts", readonly=True))
    return tuple(found)
