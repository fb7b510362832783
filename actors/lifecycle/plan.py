"""Plans a start: names, paths and labels, computed before the driver creates anything.

The functions here are pure. Most jobs with faults fail here, before an image is pulled.
"""

from __future__ import annotations

import dataclasses
import os
import platform
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from actors.checks import rootless
from actors.files.state_dir import task_directory
from actors.images.messages import ImageReady, ImageRequest
from actors.images.request import request
from actors.lifecycle import cgroup
from actors.lifecycle.directory import STDIN
from actors.model import identifiers, ownership, task_logs
from actors.model.ownership import OwnerLabels
from actors.provision import alloc_networks, gates, shared_namespaces
from actors.provision.init_program import init_program
from actors.provision.shared_namespaces import SharedNamespaces
from containerd import runtimes
from containerd.api.records import Streams
from containerd.runtimes import Runtime
from containerd.security.policy import Security
from containerd.security.selinux import Contexts
from containerd.spec.build import SpecInputs
from containerd.spec.resources import Limits
from proto.errors import Code, DriverError, start_refused
from proto.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.model.gates import Gates
    from actors.model.node import Node
    from actors.model.nomad import TaskConfig
    from actors.model.settings import DriverSettings, TaskOptions
    from actors.model.task_logs import LogTarget
    from actors.provision.host_resources import HostParts
    from containerd.daemon_process import DaemonProcess
    from containerd.spec.users import ResolvedUser


_BRIDGE_NETWORK = 'write network { mode = "bridge" port "LABEL" { to = PORT } } into the group'


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Names and paths of one start. stdout and stderr are the shim's FIFOs, or both empty.

    `labels` go onto every object of the start in containerd; `owner` is a part of them.
    warnings are sentences on options without effect. `preparation` sets security, contexts and
    recursive_readonly, which depend on the node.
    """

    container_id: str
    directory: Path
    image: ImageRequest
    runtime: Runtime
    init: str
    hostname: str
    log: LogTarget
    stdout: str
    stderr: str
    owner: OwnerLabels
    labels: dict[str, str]
    oom_score_adj: int = 0
    security: Security = field(default_factory=Security)
    contexts: Contexts = field(default_factory=Contexts)
    recursive_readonly: bool = False
    limits: Limits = field(default_factory=Limits)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """A start that was checked against the job and the node. Nothing is created yet.

    shared: the open namespaces of other processes, which the holder of the object closes.
    """

    node: Node
    task: TaskConfig
    options: TaskOptions
    plan: Plan
    parts: HostParts
    shared: SharedNamespaces = field(default_factory=SharedNamespaces)


def make(node: Node, task: TaskConfig, options: TaskOptions) -> Plan:
    """Plans a start.

    Args:
        node: the driver's settings and the machine.
        task: Nomad's description of the task.
        options: the job's options.

    Raises:
        DriverError: code INVALID; options contradict each other, or the task's name is unusable.
            Code DENIED; the operator's settings forbid the start.
    """
    settings = node.settings
    if not settings.enabled:
        raise DriverError(
            "the containerd driver is disabled on this node",
            resolution="set enabled = true in the plugin block",
            code=Code.DENIED,
        )
    _check(task, options)
    gates.check(settings.gates_of(task.namespace), options)
    container = identifiers.container_id(task.alloc_id, task.name, cgroup_v2=node.cgroup_v2)
    directory = task_directory(node.state_dir, container)
    log = task_logs.target_of(settings, options, task, container)
    stdout, stderr = _logs(log, directory, task)
    limits, unused = _limits(node, task, options)
    unused = (*unused, *task_logs.unused(settings, options))
    owner, score = ownership.owner_of(node, task), options.oom_score_adj
    return Plan(
        container_id=container,
        directory=directory,
        image=request(node, task, options),
        runtime=_runtime(settings, settings.gates_of(task.namespace), options),
        init=init_program(settings) if options.init else "",
        hostname=_hostname(task, options),
        log=log,
        stdout=stdout,
        stderr=stderr,
        owner=owner,
        labels={
            **options.labels,
            **ownership.extra_labels(task, _extra_labels(settings, options)),
            **ownership.labels(task, owner),
        },
        oom_score_adj=settings.oom_score_adj if score is None else score,
        limits=limits,
        warnings=(*options.warnings, *unused),
    )


def _check(task: TaskConfig, options: TaskOptions) -> None:
    if "\0" in task.name or not {"", ".", ".."}.isdisjoint(task.name.split("/")):
        raise start_refused(
            f"invalid task name {task.name[:64]!r}: the task's directory has this name"
        )
    if options.host_network and task.network is not None:
        raise DriverError(
            "host_network and bridge network mode are mutually exclusive, and only one of them"
            " should be set",
            code=Code.INVALID,
        )
    _check_network(task, options)
    _check_sysctls(options)
    if options.uts_mode and options.hostname:
        raise start_refused("hostname and uts_mode are mutually exclusive")


def _check_network(task: TaskConfig, options: TaskOptions) -> None:
    if options.network_mode == "bridge" and task.network is None:
        raise start_refused(
            'network_mode: "bridge": the group has no network of its own', _BRIDGE_NETWORK
        )
    if options.host_network and options.network_mode not in {"", "host"}:
        raise start_refused(
            f"host_network and network_mode = {options.network_mode[:64]!r} are mutually exclusive"
        )
    # On the host's network a task listens on the ports themselves, as with Docker.
    reachable = task.network is not None or options.host_network
    known = {port.label for port in task.resources.ports} if reachable else set()
    for label in options.ports:
        if label not in known:
            raise start_refused(
                f"Port {label[:64]!r} not found, check network block", _BRIDGE_NETWORK
            )


def _limits(node: Node, task: TaskConfig, options: TaskOptions) -> tuple[Limits, tuple[str, ...]]:
    """Returns the task's limits, and sentences on limits that this machine does not have."""
    if not node.cgroups:
        return Limits(), (rootless.NOT_LIMITED,)
    pids = node.settings.gates_of(task.namespace).pids_limit
    limits = cgroup.limits(task.resources, options, node.settings, usual_pids=pids)
    if limits.memory_swappiness is None or not node.cgroup_v2:
        return limits, ()
    sentence = "memory_swappiness: cgroup v2 has no such setting"
    return dataclasses.replace(limits, memory_swappiness=None), (sentence,)


def _extra_labels(settings: DriverSettings, options: TaskOptions) -> tuple[str, ...]:
    return settings.extra_labels if options.extra_labels is None else options.extra_labels


def _hostname(task: TaskConfig, options: TaskOptions) -> str:
    """Returns the container's host name; the node's own where the task shares the UTS namespace."""
    if options.uts_mode:
        return platform.node()
    if options.hostname:
        return options.hostname
    if task.network is not None and (name := task.network.labels.get(alloc_networks.HOSTNAME)):
        return identifiers.checked_hostname(name, "network")
    return identifiers.hostname(task.alloc_id, task.name)


def _runtime(settings: DriverSettings, allow: Gates, options: TaskOptions) -> Runtime:
    written = options.runtime or settings.containerd_runtime
    allowed = allow.allow_runtimes or runtimes.KNOWN
    # A runtime runs as root with the job's options, so only names on a list are allowed.
    if options.runtime and written not in (*allowed, settings.containerd_runtime):
        raise start_refused(
            f"runtime: {written[:64]!r} is not allowed on this node",
            f"use one of {', '.join(allowed)}, or add the runtime to the driver's allow_runtimes",
            code=Code.DENIED,
        )
    return runtimes.resolve(written)


def _check_sysctls(options: TaskOptions) -> None:
    """Refuses parameters of a namespace that the task shares with the node or another process."""
    for name in options.sysctl:
        if name.startswith("net.") and options.host_network:
            shared = "host_network"
        elif name.startswith("net.") and ":" in options.network_mode:
            shared = "network_mode"
        elif name == "kernel.domainname" and options.uts_mode:
            shared = "uts_mode"
        elif not name.startswith("net.") and name != "kernel.domainname" and options.ipc_mode:
            shared = "ipc_mode"
        else:
            continue
        owner = "another network's" if shared == "network_mode" else "the host's own"
        if shared == "ipc_mode" and options.ipc_mode != "host":
            owner = "another task's"
        raise start_refused(f"sysctl: {name} would change {owner} value with {shared}")


def notes_on_user(options: TaskOptions, user: ResolvedUser) -> tuple[str, ...]:
    """Returns notes for the job's author on options that have no effect for the task's user."""
    option = "privileged" if options.privileged else "cap_add" if options.cap_add else ""
    if not option or user.uid == 0:
        return ()
    note = (
        f"{option} gives user {user.uid} no capability, as with Docker: only root has them, and"
        " programs with the set-user-ID bit or with file capabilities. Run the task as root, or"
        " give the program its capability in the image (setcap)"
    )
    return (note,)


def _logs(log: LogTarget, directory: Path, task: TaskConfig) -> tuple[str, str]:
    """Returns the shim's paths of stdout and stderr, both set or both empty.

    containerd refuses stdout without stderr.
    """
    paths = task_logs.shim_paths(log, directory, (task.stdout_path, task.stderr_path))
    stdout, stderr = ("" if path in task_logs.NO_LOG else path for path in paths)
    if bool(stdout) != bool(stderr):
        return stdout or os.devnull, stderr or os.devnull
    return stdout, stderr


def streams(planned: Plan, options: TaskOptions, log_path: Callable[[str], str]) -> Streams:
    """Returns the streams of the task's process.

    The shim writes the output of a terminal to stdout, and opens no stderr. The worker keeps the
    FIFO of stderr as for a task that writes nothing there.

    Args:
        planned: the start, with the paths of the FIFOs.
        options: the job's options.
        log_path: returns the path by which the shim opens a log.
    """
    stdin = str(planned.directory / STDIN) if options.interactive else ""
    stdout = log_path(planned.stdout)
    if options.tty:
        return Streams(stdin=stdin, stdout=stdout or os.devnull, terminal=True)
    return Streams(stdin=stdin, stdout=stdout, stderr=log_path(planned.stderr))


def _shared_paths(prepared: Preparation) -> dict[str, str]:
    """Returns the runtime's paths of the namespaces of other processes, by kind."""
    kinds = [wish.kind for wish in shared_namespaces.wishes(prepared.options)]
    if "ipc" in kinds:
        kinds.append(shared_namespaces.MEMORY)
    return {kind: shared_namespaces.pin_path(prepared.parts.pins, kind) for kind in kinds}


def _network_path(prepared: Preparation) -> str:
    """Returns the path of the task's network namespace; empty for a new one, or for the node's."""
    mode, network = prepared.options.network_mode, prepared.task.network
    if ":" in mode or mode == "none" or network is None:
        return _shared_paths(prepared).get("network", "")
    return network.path


def rlimits(node: Node, options: TaskOptions, daemon: DaemonProcess) -> dict[str, tuple[int, int]]:
    """Returns the limits of a task's process as (soft, hard), by lower-case name.

    Args:
        node: has the operator's defaults.
        options: the job's options.
        daemon: the process of containerd, which hands its own limits on.
    """
    return {
        "nofile": daemon.task_open_files(),
        **node.settings.default_ulimits,
        **({"nofile": (options.file_limit, options.file_limit)} if options.file_limit else {}),
        **options.ulimits,
    }


def spec_inputs(prepared: Preparation, image: ImageReady, user: ResolvedUser) -> SpecInputs:
    """Merges node, task, options and image into the inputs of the OCI spec.

    Args:
        prepared: the start, with all mounts at their final targets.
        image: the image that the container is created from.
        user: the task's user in the image, with the groups of `group_add`.
    """
    node, task, options = prepared.node, prepared.task, prepared.options
    plan, parts = prepared.plan, prepared.parts
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
        hostname=plan.hostname,
        cgroup_path=cgroup.cgroup_path(
            task.resources, plan.container_id, node.namespace, cgroup_v2=node.cgroup_v2
        ),
        limits=plan.limits,
        rlimits=rlimits(node, options, parts.daemon),
        oom_score_adj=plan.oom_score_adj,
        sysctl={**parts.sysctl, **options.sysctl},
        shm_size_bytes=options.shm_size_bytes,
        init=plan.init,
        mounts=parts.mounts,
        devices=parts.devices,
        hooks=parts.cdi.hooks,
        netns_path=_network_path(prepared),
        host_network=options.host_network,
        host_pid=options.pid_mode == "host",
        host_ipc=options.ipc_mode == "host",
        namespaces=_shared_paths(prepared),
        host_uts=bool(options.uts_mode),
        host_cgroup=bool(options.cgroupns),
        umask=options.umask,
        annotations=options.annotations,
        security=plan.security,
        contexts=plan.contexts,
        readonly_rootfs=options.readonly_rootfs,
        terminal=options.tty,
        cgroup_v2=node.cgroup_v2,
        rootless=rootless.spec_limits(node, parts.daemon, options),
    )
