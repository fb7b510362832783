"""What a start will make, worked out before anything is made: pure, and where bad jobs fail."""

from __future__ import annotations

import dataclasses
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from actors.files.state_dir import task_directory
from actors.images.messages import ImageReady, ImageRequest
from actors.images.request import request
from actors.lifecycle import cgroup as limits
from actors.model import identifiers, ownership
from actors.model.ownership import owners
from actors.provision.init_program import init_program
from containerd import runtimes
from containerd.runtimes import Runtime
from containerd.security.policy import Security, Wish
from containerd.spec.build import SpecInputs
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from actors.model.node import Node
    from actors.model.nomad import TaskConfig
    from actors.model.settings import DriverSettings, TaskOptions
    from actors.provision.host_resources import HostParts
    from containerd.spec.users import ResolvedUser

# Nomad gives these where a task's logs are not collected.
_NO_LOG = frozenset({"", "/dev/null"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Names and places of one start. stdout and stderr are FIFOs, or both empty.

    security and recursive_readonly are what `make` cannot know: `preparation` looks at the host.
    """

    container_id: str
    directory: Path
    image: ImageRequest
    runtime: Runtime
    init: str
    hostname: str
    stdout: str
    stderr: str
    labels: dict[str, str]
    security: Security = field(default_factory=Security)
    recursive_readonly: bool = False


def make(node: Node, task: TaskConfig, options: TaskOptions) -> Plan:
    """The plan of a start.

    Raises:
        DriverError: code INVALID; the job asks for what cannot be.
    """
    settings = node.settings
    if not settings.enabled:
        raise DriverError(
            "the containerd driver is disabled on this node",
            resolution="set enabled = true in the plugin block",
            code=Code.DENIED,
        )
    if "\0" in task.name or not {"", ".", ".."}.isdisjoint(task.name.split("/")):
        raise _invalid(f"{task.name[:64]!r} is no name of a task: it names the task's directory")
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
    _check_sysctls(options)
    if options.uts_mode and options.hostname:
        raise _invalid("hostname and uts_mode are mutually exclusive")
    container = identifiers.container_id(task.alloc_id, task.name, cgroup_v2=node.cgroup_v2)
    stdout, stderr = _logs(task)
    return Plan(
        container_id=container,
        directory=task_directory(node.state_dir, container),
        image=request(node, task, options),
        runtime=_runtime(settings, options),
        init=init_program(settings) if options.init else "",
        hostname=_hostname(task, options),
        stdout=stdout,
        stderr=stderr,
        labels={
            **options.labels,
            **ownership.labels(
                task.id,
                task.alloc_id,
                task.name,
                owner=next(iter(owners(task.node_id, task.alloc_dir)), ""),
                maker=node.maker,
                state_dir=node.state_dir,
            ),
        },
    )


def _hostname(task: TaskConfig, options: TaskOptions) -> str:
    """The name in the container: the host's own where the task shares its UTS namespace."""
    if options.uts_mode:
        return platform.node()
    return options.hostname or identifiers.hostname(task.alloc_id, task.name)


def _runtime(settings: DriverSettings, options: TaskOptions) -> Runtime:
    written = options.runtime or settings.containerd_runtime
    allowed = settings.allow_runtimes or runtimes.KNOWN
    # A runtime runs as root with what the job gives it: only names that somebody wrote down.
    if options.runtime and written not in (*allowed, settings.containerd_runtime):
        raise DriverError(
            f"Error in creating container: runtime: {written[:64]!r} is not allowed on this node",
            resolution=f"use one of {', '.join(allowed)}, or add it to the driver's allow_runtimes",
            code=Code.DENIED,
        )
    return runtimes.resolve(written)


def _check_sysctls(options: TaskOptions) -> None:
    """A parameter of a namespace that the task shares with the host would be the host's."""
    for name in options.sysctl:
        if name.startswith("net.") and options.host_network:
            raise _invalid(f"sysctl: {name} is the host's own with host_network")
        if not name.startswith("net.") and name != "kernel.domainname" and options.ipc_mode:
            raise _invalid(f"sysctl: {name} is the host's own with ipc_mode")
        if name == "kernel.domainname" and options.uts_mode:
            raise _invalid(f"sysctl: {name} is the host's own with uts_mode")


def _invalid(text: str) -> DriverError:
    return DriverError(f"Error in creating container: {text}", code=Code.INVALID)


def wish(settings: DriverSettings, options: TaskOptions) -> Wish:
    """Returns what the job asks for that a host may refuse, beside what the operator allows."""
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


def notes_on_user(options: TaskOptions, user: ResolvedUser) -> tuple[str, ...]:
    """Returns what the user of a task makes of its options, where it is not what they say."""
    asked = "privileged" if options.privileged else "cap_add" if options.cap_add else ""
    if not asked or user.uid == 0:
        return ()
    note = (
        f"{asked} gives user {user.uid} no capability, as with Docker: only root has them, and"
        " programs with the set-user-ID bit or with file capabilities. Run the task as root, or"
        " give the program its capability in the image (setcap)"
    )
    return (note,)


def _logs(task: TaskConfig) -> tuple[str, str]:
    """Containerd refuses stdout without stderr, so both are real or both are empty."""
    stdout = "" if task.stdout_path in _NO_LOG else task.stdout_path
    stderr = "" if task.stderr_path in _NO_LOG else task.stderr_path
    if bool(stdout) != bool(stderr):
        return stdout or os.devnull, stderr or os.devnull
    return stdout, stderr


def spec_inputs(
    node: Node,
    task: TaskConfig,
    options: TaskOptions,
    made: Plan,
    image: ImageReady,
    user: ResolvedUser,
    parts: HostParts,
) -> SpecInputs:
    """Everything that the OCI spec is built from."""
    return SpecInputs(
        image_config=image.config,
        command=options.command,
        args=options.args,
        entrypoint=options.entrypoint,
        cwd=options.cwd,
        env={**task.device_env, **task.env, **parts.cdi.env},
        user=dataclasses.replace(
            user,
            additional_gids=tuple(
                dict.fromkeys((*user.additional_gids, *parts.cdi.additional_gids))
            ),
        ),
        hostname=made.hostname,
        cgroup_path=limits.cgroup_path(
            task.resources, made.container_id, node.namespace, cgroup_v2=node.cgroup_v2
        ),
        limits=limits.limits(task.resources, options, node.settings),
        rlimits={
            "nofile": parts.daemon.task_open_files(),
            **node.settings.default_ulimits,
            **options.ulimits,
        },
        oom_score_adj=options.oom_score_adj,
        sysctl={**parts.sysctl, **options.sysctl},
        shm_size_bytes=options.shm_size_bytes,
        init=made.init,
        mounts=parts.mounts,
        devices=parts.devices,
        hooks=parts.cdi.hooks,
        netns_path=task.network.path if task.network else "",
        host_network=options.host_network,
        host_pid=bool(options.pid_mode),
        host_ipc=bool(options.ipc_mode),
        host_uts=bool(options.uts_mode),
        security=made.security,
        readonly_rootfs=options.readonly_rootfs,
        cgroup_v2=node.cgroup_v2,
    )
