"""What a start will make, worked out before anything is made: pure, and where bad jobs fail."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from actors import identifiers
from actors.image_wire import ImageReady, ImageRequest
from containerd import mounts, reference, spec
from containerd.security import Security, Wish
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from actors.host_parts import HostParts
    from actors.nomad_types import TaskConfig
    from actors.running_task import Services
    from actors.settings import Auth, DriverSettings, TaskOptions
    from containerd.mounts import MountPoint
    from containerd.rootfs_users import ResolvedUser

# Nomad gives these where a task's logs are not collected.
_NO_LOG = frozenset({"", "/dev/null"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Names and places of one start. stdout and stderr are FIFOs, or both empty.

    security is what `make` cannot know: `containerd.security.for_task` looks at the host.
    """

    container_id: str
    directory: Path
    image: ImageRequest
    runtime: str
    stdout: str
    stderr: str
    labels: dict[str, str]
    security: Security = field(default_factory=Security)


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
        image=_image(services, options),
        runtime=settings.containerd_runtime,
        stdout=stdout,
        stderr=stderr,
        labels=identifiers.labels(task.id, task.alloc_id, task.name),
    )


def wish(settings: DriverSettings, options: TaskOptions) -> Wish:
    """What the job asks for that a host may refuse, beside what the operator allows."""
    return Wish(
        privileged=options.privileged,
        cap_add=options.cap_add,
        cap_drop=options.cap_drop,
        seccomp=options.seccomp,
        seccomp_profile=options.seccomp_profile,
        apparmor_profile=options.apparmor_profile,
        allow_privileged=settings.allow_privileged,
        seccomp_profile_dir=settings.seccomp_profile_dir,
    )


def _image(services: Services, options: TaskOptions) -> ImageRequest:
    name = reference.parse(options.image)
    return ImageRequest(
        written=options.image,
        name=str(name),
        snapshotter=services.containerd.default_snapshotter,
        timeout_s=options.image_pull_timeout_s,
        auth=options.auth or _operators_auth(services.settings.auth, name),
        always_pull=name.tag == "latest" and not name.digest,
    )


def _operators_auth(auth: Auth | None, name: reference.Reference) -> Auth | None:
    """The operator's credentials, bound to a registry: the image's name is the job author's."""
    if auth is None or auth.server_address:
        return auth
    return auth if name.registry == reference.DEFAULT_REGISTRY else None


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
    parts: HostParts,
    made: Plan,
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
        env={**task.device_env, **task.env, **parts.cdi.env},
        user=dataclasses.replace(
            user, additional_gids=(*user.additional_gids, *parts.cdi.additional_gids)
        ),
        hostname=options.hostname or identifiers.hostname(alloc_id, name),
        cgroup_path=identifiers.cgroup_path(container, services.namespace),
        memory_limit_bytes=hard,
        memory_reservation_bytes=soft,
        cpu_shares=resources.cpu_shares,
        cpuset_cpus=resources.cpuset_cpus,
        mounts=(*host_files(options), *parts.mounts),
        devices=parts.devices,
        hooks=parts.cdi.hooks,
        shm_size_bytes=options.shm_size_bytes,
        netns_path=task.network.path if task.network else "",
        host_network=options.host_network,
        security=made.security,
        readonly_rootfs=options.readonly_rootfs,
        cgroup_v2=services.cgroup_v2,
    )


def host_files(options: TaskOptions) -> tuple[MountPoint, ...]:
    """Binds of the host's resolv.conf and hosts."""
    found: list[MountPoint] = []
    if options.host_dns or options.host_network:
        found.append(mounts.bind("/etc/resolv.conf", "/etc/resolv.conf", readonly=True))
    if options.host_network:
        found.append(mounts.bind("/etc/hosts", "/etc/hosts", readonly=True))
    return tuple(found)
