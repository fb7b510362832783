"""What a task gets of its host: mounts, devices, name files, and what CDI adds to these.

`gather` runs before the image is pulled, so that a wrong path costs no pull. It reads the host and
changes nothing; the sources that need it are held later, see `host_paths.pin`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from posixpath import basename

from actors.blocking import file_servers
from actors.files import private_files
from actors.model.nomad import NetworkOverride, TaskConfig
from actors.model.settings import DriverSettings, TaskOptions
from actors.provision import etc_files, lost_network, mount_sources, netns, network_sysctls
from actors.provision.etc_files import HostTexts, NameFiles
from actors.provision.mount_sources import Source
from actors.provision.netns import Network
from containerd import daemon_process
from containerd.daemon_process import DaemonProcess
from containerd.spec import cdi, devices
from containerd.spec.devices import DeviceNode
from containerd.spec.mounts import MountPoint, bind, invalid, job_mount, volume_mount

_DIRECTORIES = (
    ("alloc", "NOMAD_ALLOC_DIR", "/alloc"),
    ("local", "NOMAD_TASK_DIR", "/local"),
    ("secrets", "NOMAD_SECRETS_DIR", "/secrets"),
)
_MAX_HOST_FILE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class HostParts:
    """Mounts whose sources are paths for the runtime, those of `pinned` made by `host_paths.pin`.

    sources are by the path that the runtime gets; own are the targets of the driver's own mounts.
    pins is the directory where pinning happens. files are texts by name, for `private_files.write`
    before that. notes are for the user; network is what Nomad is told of the task's own; sysctl
    are kernel parameters that it gets where the job sets none; daemon is what it inherits.
    """

    mounts: tuple[MountPoint, ...] = ()
    sources: Mapping[str, Source] = field(default_factory=dict)
    own: tuple[str, ...] = ()
    devices: tuple[DeviceNode, ...] = ()
    cdi: cdi.Edits = field(default_factory=cdi.Edits)
    pins: Path = Path()
    pinned: tuple[Source, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    network: NetworkOverride | None = None
    sysctl: Mapping[str, str] = field(default_factory=dict)
    daemon: DaemonProcess = daemon_process.USUAL


def gather(
    settings: DriverSettings,
    task: TaskConfig,
    options: TaskOptions,
    *,
    hostname: str,
    pins: Path,
) -> HostParts:
    """Everything of the host that the task will have. Blocks; changes nothing.

    Raises:
        DriverError: code INVALID; the job asks for what is not there or cannot be.
    """
    for directory in settings.cdi_spec_dirs if options.cdi_devices else ():
        file_servers.visit(directory, "cdi_spec_dirs")
    edits = cdi.edits(options.cdi_devices, settings.cdi_spec_dirs)
    plan = _Mounts(pins)
    _directories(plan, task)
    _volume_mounts(plan, task, options)
    _job_mounts(plan, task, options)
    for point in edits.mounts:
        plan.add(point, Source(path=point.source, what="devices (CDI)"))
    _no_target_twice(plan.found[plan.own :])
    for source in plan.sources:
        mount_sources.check(source)
    if task.network:
        file_servers.visit(task.network.path, "network namespace")
    network = netns.look(task.network.path) if task.network else None
    missed = lost_network.look(task, network)
    named = _name_files(plan, task, options, hostname, network)
    return HostParts(
        mounts=tuple(plan.found),
        sources=plan.by_path,
        own=tuple(point.target for point in plan.found[: plan.own]),
        devices=_devices(task, options, edits),
        cdi=edits,
        pins=pins,
        pinned=tuple(plan.pinned),
        files=_files(named, network),
        notes=(*missed, *named.notes),
        network=override(task, network),
        sysctl=_sysctl(options, network),
        daemon=daemon_process.look(settings.containerd_address),
    )


def _sysctl(options: TaskOptions, network: Network | None) -> Mapping[str, str]:
    if options.host_network:
        return {}
    return network.sysctl if network else network_sysctls.for_new_network()


class _Mounts:
    """Collects mounts; `own` is how many of them are the driver's."""

    def __init__(self, pins: Path) -> None:
        self.found: list[MountPoint] = []
        self.sources: list[Source] = []
        self.by_path: dict[str, Source] = {}
        self.pinned: list[Source] = []
        self.own = 0
        self._pins = pins

    def path_of(self, source: Source) -> str:
        """The path that the runtime gets."""
        self.sources.append(source)
        if source.root:
            return self.held(source)
        self.by_path[source.path] = source
        return source.path

    def held(self, source: Source) -> str:
        """The path of what is there by the time when the sources are held."""
        self.pinned.append(source)
        path = mount_sources.pin_path(self._pins, len(self.pinned) - 1)
        self.by_path[path] = source
        return path

    def add(self, point: MountPoint, source: Source) -> None:
        """Adds a mount that names its own source."""
        if point.type == "bind":
            self.path_of(source)
        self.found.append(point)


def _directories(plan: _Mounts, task: TaskConfig) -> None:
    """The allocation's directories.

    /alloc/logs is read-only: a task that swaps its log FIFO for a link must not be possible.
    """
    if not task.alloc_dir:
        return
    for name, variable, fallback in _DIRECTORIES:
        target = task.env.get(variable) or fallback
        path = name if name == mount_sources.SHARED else f"{task.name}/{name}"
        source = Source(path=path, root=task.alloc_dir, what=variable)
        plan.found.append(bind(plan.path_of(source), target))
        if name == mount_sources.SHARED:
            _logs(plan, task, target)
    plan.own = len(plan.found)


def _logs(plan: _Mounts, task: TaskConfig, shared: str) -> None:
    source = Source(path=mount_sources.LOGS, root=task.alloc_dir, what="logs")
    plan.found.append(bind(plan.path_of(source), f"{shared}/logs", readonly=True))


def _name_files(
    plan: _Mounts, task: TaskConfig, options: TaskOptions, hostname: str, network: Network | None
) -> NameFiles:
    """Mounts of the files that `start` will write; a mount of the job in their place wins."""
    if not task.alloc_dir:
        return NameFiles()
    named = etc_files.build(
        options, hostname=hostname, network=network, dns=task.dns, host=_host_texts()
    )
    taken = {point.target for point in plan.found}
    texts = {path: text for path, text in named.texts.items() if path not in taken}
    for path in texts:
        own = private_files.path_below(task.name, basename(path))
        point = bind(
            plan.held(Source(path=own, root=task.alloc_dir, what=path)),
            path,
            readonly=options.readonly_rootfs,
        )
        plan.found.append(point)
    return NameFiles(texts=texts, notes=named.notes)


def _files(named: NameFiles, network: Network | None) -> dict[str, str]:
    texts = {basename(path): text for path, text in named.texts.items()}
    return {**texts, **lost_network.memory(network)} if texts else texts


def _host_texts() -> HostTexts:
    return HostTexts(
        hosts=_text("/etc/hosts"),
        resolv=_text("/etc/resolv.conf"),
        uplink=_text("/run/systemd/resolve/resolv.conf"),
    )


def _text(path: str) -> str:
    file_servers.visit(path, "names")
    try:
        with Path(path).open("rb") as file:
            return file.read(_MAX_HOST_FILE_BYTES).decode(errors="replace")
    except OSError:
        return ""


def override(task: TaskConfig, network: Network | None) -> NetworkOverride | None:
    """What Nomad registers for services with `address_mode = "driver"`: the task's own address.

    Not advertised by itself: other services of the job keep the host's address and port.
    """
    if network is None or not network.addresses:
        return None
    ports = {port.label: port.to if port.to > 0 else port.value for port in task.resources.ports}
    return NetworkOverride(addr=network.addresses[0], auto_advertise=False, port_map=ports)


def _volume_mounts(plan: _Mounts, task: TaskConfig, options: TaskOptions) -> None:
    """Of host volumes, CSI volumes and device plugins: their paths are Nomad's own word."""
    for volume in task.mounts:
        point = volume_mount(
            volume.host_path,
            volume.task_path,
            readonly=volume.readonly,
            propagation=volume.propagation_mode,
            privileged=options.privileged,
        )
        plan.add(point, Source(path=volume.host_path, what="volume_mount"))


def _job_mounts(plan: _Mounts, task: TaskConfig, options: TaskOptions) -> None:
    for wanted in options.mounts:
        point = job_mount(
            type=wanted.type,
            source=wanted.source,
            target=wanted.target,
            options=wanted.options,
            readonly=wanted.readonly,
            propagation=wanted.propagation,
            tmpfs_size_bytes=wanted.tmpfs_size_bytes,
            tmpfs_mode=wanted.tmpfs_mode,
            privileged=options.privileged,
        )
        if point.type == "tmpfs":
            plan.found.append(point)
            continue
        if wanted.type == "volume" and _is_a_name(wanted.source):
            raise invalid(
                f"mounts: {wanted.source[:64]!r} is the name of a volume, and this driver has no"
                " named volumes",
                'use a volume block of Nomad, or a path such as "local/data"',
            )
        source = mount_sources.locate(wanted.source, task)
        logs = mount_sources.is_in_logs(source)
        words = (*point.options, "ro") if logs and not point.readonly else point.options
        plan.found.append(dataclasses.replace(point, source=plan.path_of(source), options=words))
        if mount_sources.holds_logs(source):
            _logs(plan, task, point.target)


def _is_a_name(source: str) -> bool:
    return "/" not in source and source not in {"local", "secrets", "tmp", "alloc", ".", ".."}


def _no_target_twice(points: Iterable[MountPoint]) -> None:
    seen: set[str] = set()
    for point in points:
        if point.target in seen:
            raise invalid(f"mounts: two of them are at {point.target[:128]}")
        seen.add(point.target)


def _devices(task: TaskConfig, options: TaskOptions, edits: cdi.Edits) -> tuple[DeviceNode, ...]:
    """Of the host if privileged, then of Nomad's device plugins, of CDI and of the job."""
    found = devices.every_host_node() if options.privileged else []
    for given in task.devices:
        file_servers.visit(given.host_path, "device")
        found += devices.host_nodes(
            given.host_path, given.task_path, given.cgroup_permissions, what="device"
        )
    found += edits.devices
    for wanted in options.devices:
        file_servers.visit(wanted.host_path, "devices")
        found += devices.host_nodes(
            wanted.host_path, wanted.container_path, wanted.cgroup_permissions
        )
    return devices.unique(found)
