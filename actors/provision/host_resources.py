"""Collects a task's resources of the node: mounts, devices, network files, and CDI's additions.

`gather` runs before the image is pulled, so a wrong path costs no pull. It reads the node and
changes nothing. `mount_sources.pin` pins the sources of mounts later.

`gather` first collects requests, then builds all mounts at once, then resolves all sources, then
the devices. So a fault that a job has on every node is reported before a fault of this node.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field
from functools import partial
from pathlib import Path
from posixpath import basename
from typing import TypeVar

from actors.blocking import file_servers
from actors.files import private_files
from actors.model.gates import Gates
from actors.model.nomad import MountConfig, NetworkOverride, TaskConfig
from actors.model.settings import DriverSettings, MountOption, TaskOptions
from actors.provision import (
    cdi_devices,
    etc_files,
    gates,
    lost_network,
    mount_sources,
    netns,
    network_sysctls,
)
from actors.provision.etc_files import HostTexts, NetworkFiles, asking
from actors.provision.mount_sources import Relabel, Source
from actors.provision.netns import Network
from containerd import daemon_process
from containerd.daemon_process import DaemonProcess
from containerd.runtimes import Runtime
from containerd.spec import cdi, devices
from containerd.spec.devices import DeviceNode
from containerd.spec.mounts import MountPoint, bind, job_mount, volume_mount
from proto.errors import start_refused
from proto.values import dataclass

T = TypeVar("T")
_DIRECTORIES = (
    ("alloc", "NOMAD_ALLOC_DIR", "/alloc"),
    ("local", "NOMAD_TASK_DIR", "/local"),
    ("secrets", "NOMAD_SECRETS_DIR", "/secrets"),
)
_MAX_HOST_FILE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class HostParts:
    """A task's resources of the node.

    mounts: their sources are paths for the runtime.
    sources: the sources by these paths.
    own: the targets of the driver's own mounts.
    devices: nodes of the container; CDI's are among them.
    cdi: CDI's environment, groups and hooks.
    relabels: sources that get an SELinux context, where SELinux confines the task.
    pins: the directory where `mount_sources.pin` mounts the sources in `pinned`.
    files: texts by name, for `private_files.write`, which runs before the pinning.
    notes: sentences for the job's author.
    network: the task's own address, for Nomad's services.
    sysctl: kernel parameters that the task gets where the job sets none.
    daemon: limits that tasks inherit from containerd.
    """

    mounts: tuple[MountPoint, ...] = ()
    sources: Mapping[str, Source] = field(default_factory=dict)
    own: tuple[str, ...] = ()
    devices: tuple[DeviceNode, ...] = ()
    cdi: cdi.Edits = field(default_factory=cdi.Edits)
    pins: Path = Path()
    pinned: tuple[Source, ...] = ()
    relabels: tuple[Relabel, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    network: NetworkOverride | None = None
    sysctl: Mapping[str, str] = field(default_factory=dict)
    daemon: DaemonProcess = daemon_process.USUAL


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """A mount that the task gets.

    build: returns the mount, with the source as Nomad or the job names it.
    locate: returns the source of a bind; called when all mounts are built.
    words: Docker's `z` or `Z` for the source's SELinux context, or empty.
    asked: True if the words are the mount's own, and no default.
    """

    build: Callable[[], MountPoint]
    locate: Callable[[], Source]
    words: str = ""
    asked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mount:
    """A mount that is built, and the source on the node; None for a tmpfs."""

    point: MountPoint
    source: Source | None
    relabel: Relabel | None = None


def gather(
    settings: DriverSettings,
    task: TaskConfig,
    options: TaskOptions,
    *,
    hostname: str,
    pins: Path,
    runtime: Runtime,
) -> HostParts:
    """Collects a task's resources of the node. Blocks; changes nothing.

    Args:
        settings: the driver's settings.
        task: Nomad's description of the task.
        options: the job's options.
        hostname: the task's host name, for /etc/hosts and /etc/hostname.
        pins: the directory for the pins of mount sources.
        runtime: the task's runtime.

    Raises:
        DriverError: code INVALID; a mount or a device is impossible, or does not exist here. Code
            PRECONDITION; the allocation's network namespace is gone, or has lost its address.
    """
    allow = settings.gates_of(task.namespace)
    edits = cdi_devices.edits(settings, task, options, runtime)
    own_requests = list(_directories(task, allow.volume_label or "Z"))
    requests = [
        *(_volume_request(volume, options, allow) for volume in task.mounts),
        *(_job_request(mount, task, options, allow) for mount in options.mounts),
        *(_cdi_request(point) for point in edits.mounts),
    ]
    points = [request.build() for request in (*own_requests, *requests)]
    own = list(_located(own_requests, points[: len(own_requests)], task))
    others = list(_located(requests, points[len(own_requests) :], task))
    _no_target_twice(mount.point.target for mount in others)
    mounts = [*own, *others]
    for mount in mounts:
        if mount.source is not None:
            mount_sources.check(mount.source)
    network = _network(task)
    # The address of a network that another process has made may change between two starts.
    lasting = network if ":" not in options.network_mode else None
    missing = lost_network.check(task, lasting)
    host = asking(_host_texts(), settings.dns_servers)
    files = _network_files(task, options, hostname, network, host)
    targets = {mount.point.target for mount in mounts}
    # A mount of the job in the place of such a file wins.
    texts = {path: text for path, text in files.texts.items() if path not in targets}
    mounts += (_file_mount(path, task, options) for path in texts)
    paths = _Paths(pins)
    return HostParts(
        mounts=tuple(paths.with_path(mount) for mount in mounts),
        sources=paths.sources,
        own=tuple(mount.point.target for mount in own),
        devices=_devices(task, options, edits),
        cdi=edits,
        pins=pins,
        pinned=tuple(paths.pinned),
        relabels=tuple(mount.relabel for mount in mounts if mount.relabel),
        files=_by_name(texts, lasting),
        notes=(*missing, *files.notes),
        network=netns.override(task, network, ipv6=options.advertise_ipv6),
        sysctl=_sysctl(options, network),
        daemon=daemon_process.inspect(settings.containerd_address),
    )


def _directories(task: TaskConfig, words: str) -> Iterator[_Request]:
    """Requests the directories of the allocation that a task sees."""
    if not task.alloc_dir:
        return
    for name, variable, fallback in _DIRECTORIES:
        path = name if name == mount_sources.SHARED else f"{task.name}/{name}"
        source = Source(path=path, root=task.alloc_dir, what=variable)
        target = task.env.get(variable) or fallback
        yield _Request(
            build=partial(bind, str(source), target), locate=partial(_same, source), words=words
        )


def _volume_request(volume: MountConfig, options: TaskOptions, allow: Gates) -> _Request:
    """Requests a host volume, a CSI volume or a mount of a device plugin: Nomad's own paths."""
    return _Request(
        build=partial(
            volume_mount,
            volume.host_path,
            volume.task_path,
            readonly=volume.readonly,
            propagation=volume.propagation_mode,
            privileged=options.privileged,
        ),
        locate=partial(_same, Source(path=volume.host_path, what="volume_mount")),
        words=volume.selinux_label or allow.volume_label,
        asked=bool(volume.selinux_label),
    )


def _job_request(
    mount: MountOption, task: TaskConfig, options: TaskOptions, allow: Gates
) -> _Request:
    def locate() -> Source:
        if mount.type == "volume" and _is_a_name(mount.source):
            raise start_refused(
                f"mounts: {mount.source[:64]!r} is the name of a volume, and this driver has no"
                " named volumes",
                'use a volume block of Nomad, or a path such as "local/data"',
            )
        return gates.volume(allow, mount_sources.locate(mount.source, task))

    build = partial(job_mount, mount, privileged=options.privileged)
    words = "".join(dict.fromkeys(word for word in mount.options if word in {"z", "Z"}))
    return _Request(
        build=build, locate=locate, words=words or allow.volume_label, asked=bool(words)
    )


def _cdi_request(point: MountPoint) -> _Request:
    source = Source(path=point.source, what="devices (CDI)")
    return _Request(build=partial(_same, point), locate=partial(_same, source))


def _same(value: T) -> T:
    return value


def _is_a_name(source: str) -> bool:
    return "/" not in source and source not in {"local", "secrets", "tmp", "alloc", ".", ".."}


def _located(
    requests: Iterable[_Request], points: Iterable[MountPoint], task: TaskConfig
) -> Iterator[_Mount]:
    """Finds the sources of mounts, and makes the group's log directory read-only in each of them.

    A task that can replace its log FIFO by a link would make Nomad or the shim follow the link.
    """
    for request, point in zip(requests, points, strict=True):
        if point.type != "bind":
            yield _Mount(point=point, source=None)
            continue
        source = request.locate()
        relabel = Relabel(source=source, words=request.words, asked=request.asked)
        if mount_sources.is_in_logs(source) and not point.readonly:
            point = dataclasses.replace(point, options=(*point.options, "ro"))  # noqa: PLW2901
        yield _Mount(point=point, source=source, relabel=relabel if request.words else None)
        if mount_sources.holds_logs(source):
            logs = Source(path=mount_sources.LOGS, root=task.alloc_dir, what="logs")
            yield _Mount(point=bind(str(logs), f"{point.target}/logs", readonly=True), source=logs)


def _no_target_twice(targets: Iterable[str]) -> None:
    seen: set[str] = set()
    for target in targets:
        if target in seen:
            raise start_refused(f"mounts: two of them are at {target[:128]}")
        seen.add(target)


class _Paths:
    """Chooses the path by which the runtime gets each source: the source's own, or a pin's."""

    def __init__(self, pins: Path) -> None:
        self._pins = pins
        self.sources: dict[str, Source] = {}
        self.pinned: list[Source] = []

    def with_path(self, mount: _Mount) -> MountPoint:
        """Returns the mount with the path as its source."""
        if mount.source is None:
            return mount.point
        path = mount.source.path
        if mount.source.root:
            path = mount_sources.pin_path(self._pins, len(self.pinned))
            self.pinned.append(mount.source)
        self.sources[path] = mount.source
        return dataclasses.replace(mount.point, source=path)


def _network(task: TaskConfig) -> Network | None:
    if task.network is None:
        return None
    file_servers.visit(task.network.path, "network namespace")
    return netns.inspect(task.network.path)


def _network_files(
    task: TaskConfig, options: TaskOptions, hostname: str, network: Network | None, host: HostTexts
) -> NetworkFiles:
    if not task.alloc_dir:
        return NetworkFiles()
    return etc_files.build(options, hostname=hostname, network=network, dns=task.dns, host=host)


def _file_mount(path: str, task: TaskConfig, options: TaskOptions) -> _Mount:
    """Mounts a network file, which the start writes before the pinning."""
    below = private_files.path_below(task.name, basename(path))
    source = Source(path=below, root=task.alloc_dir, what=path)
    return _Mount(
        point=bind(str(source), path, readonly=options.readonly_rootfs),
        source=source,
        relabel=Relabel(source=source, words="Z"),
    )


def _by_name(texts: Mapping[str, str], network: Network | None) -> dict[str, str]:
    files = {basename(path): text for path, text in texts.items()}
    return {**files, **lost_network.memory(network)} if files else files


def _host_texts() -> HostTexts:
    return HostTexts(
        hosts=_text("/etc/hosts"),
        resolv=_text("/etc/resolv.conf"),
        uplink=_text("/run/systemd/resolve/resolv.conf"),
    )


def _text(path: str) -> str:
    file_servers.visit(path, "network files")
    try:
        with Path(path).open("rb") as file:
            return file.read(_MAX_HOST_FILE_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _sysctl(options: TaskOptions, network: Network | None) -> Mapping[str, str]:
    if options.host_network or ":" in options.network_mode:
        return {}
    return network.sysctl if network else network_sysctls.for_new_network()


def _devices(task: TaskConfig, options: TaskOptions, edits: cdi.Edits) -> tuple[DeviceNode, ...]:
    """Collects the device nodes: of the node if privileged, then Nomad's, CDI's and the job's.

    A later device at the same path wins.
    """
    for wanted in task.devices:
        file_servers.visit(wanted.host_path, "device")
    for option in options.devices:
        file_servers.visit(option.host_path, "devices")
    return devices.unique(
        (
            *(devices.every_host_node() if options.privileged else ()),
            *(
                node
                for wanted in task.devices
                for node in devices.host_nodes(
                    wanted.host_path, wanted.task_path, wanted.cgroup_permissions, what="device"
                )
            ),
            *edits.devices,
            *(
                node
                for option in options.devices
                for node in devices.host_nodes(
                    option.host_path, option.container_path, option.cgroup_permissions
                )
            ),
        )
    )
