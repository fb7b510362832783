"""What a task gets of its host: mounts, devices, and what CDI adds to both.

`gather` runs before the image is pulled, so that a wrong path costs no pull. It reads the host and
changes nothing; the sources that need it are held later, see `host_paths.pin`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from actors import host_paths
from actors.host_paths import Source
from actors.nomad_types import TaskConfig
from actors.settings import DriverSettings, TaskOptions
from containerd import cdi, devices, mounts
from containerd.devices import DeviceNode
from containerd.mounts import MountPoint

_DIRECTORIES = (
    ("alloc", "NOMAD_ALLOC_DIR", "/alloc"),
    ("local", "NOMAD_TASK_DIR", "/local"),
    ("secrets", "NOMAD_SECRETS_DIR", "/secrets"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostParts:
    """Mounts whose sources are paths for the runtime, those of `pinned` made by `host_paths.pin`.

    pins is the directory where that happens.
    """

    mounts: tuple[MountPoint, ...] = ()
    devices: tuple[DeviceNode, ...] = ()
    cdi: cdi.Edits = field(default_factory=cdi.Edits)
    pins: Path = Path()
    pinned: tuple[Source, ...] = ()


def gather(
    settings: DriverSettings, task: TaskConfig, options: TaskOptions, pins: Path
) -> HostParts:
    """Everything of the host that the task will have. Blocks; changes nothing.

    Raises:
        DriverError: code INVALID; the job asks for what is not there or cannot be.
    """
    edits = cdi.edits(options.cdi_devices, settings.cdi_spec_dirs)
    plan = _Mounts(pins)
    _directories(plan, task)
    _volume_mounts(plan, task)
    _job_mounts(plan, task, options)
    for point in edits.mounts:
        plan.add(point, Source(path=point.source, what="devices (CDI)"))
    _no_target_twice(plan.found[plan.own :])
    for source in plan.sources:
        host_paths.check(source)
    return HostParts(
        mounts=tuple(plan.found),
        devices=_devices(task, options, edits),
        cdi=edits,
        pins=pins,
        pinned=tuple(plan.pinned),
    )


class _Mounts:
    """Collects mounts; `own` is how many of them are the driver's."""

    def __init__(self, pins: Path) -> None:
        self.found: list[MountPoint] = []
        self.sources: list[Source] = []
        self.pinned: list[Source] = []
        self.own = 0
        self._pins = pins

    def path_of(self, source: Source) -> str:
        """The path that the runtime gets."""
        self.sources.append(source)
        if not source.root:
            return source.path
        self.pinned.append(source)
        return host_paths.pin_path(self._pins, len(self.pinned) - 1)

    def add(self, point: MountPoint, source: Source) -> None:
        """Adds a mount that names its own source."""
        if point.type == "bind":
            self.sources.append(source)
        self.found.append(point)


def _directories(plan: _Mounts, task: TaskConfig) -> None:
    """The allocation's directories.

    /alloc/logs is read-only: a task that swaps its log FIFO for a link must not be possible.
    """
    if not task.alloc_dir:
        return
    for name, variable, fallback in _DIRECTORIES:
        target = task.env.get(variable) or fallback
        path = name if name == host_paths.SHARED else f"{task.name}/{name}"
        source = Source(path=path, root=task.alloc_dir, what=variable)
        plan.found.append(mounts.bind(plan.path_of(source), target))
        if name == host_paths.SHARED:
            _logs(plan, task, target)
    plan.own = len(plan.found)


def _logs(plan: _Mounts, task: TaskConfig, shared: str) -> None:
    source = Source(path=host_paths.LOGS, root=task.alloc_dir, what="logs")
    plan.found.append(mounts.bind(plan.path_of(source), f"{shared}/logs", readonly=True))


def _volume_mounts(plan: _Mounts, task: TaskConfig) -> None:
    """Of host volumes, CSI volumes and device plugins: their paths are Nomad's own word."""
    for volume in task.mounts:
        point = mounts.volume_mount(
            volume.host_path,
            volume.task_path,
            readonly=volume.readonly,
            propagation=volume.propagation_mode,
        )
        plan.add(point, Source(path=volume.host_path, what="volume_mount"))


def _job_mounts(plan: _Mounts, task: TaskConfig, options: TaskOptions) -> None:
    for wanted in options.mounts:
        point = mounts.job_mount(
            type=wanted.type,
            source=wanted.source,
            target=wanted.target,
            options=wanted.options,
            readonly=wanted.readonly,
            propagation=wanted.propagation,
            tmpfs_size_bytes=wanted.tmpfs_size_bytes,
            tmpfs_mode=wanted.tmpfs_mode,
        )
        if point.type == "tmpfs":
            plan.found.append(point)
            continue
        if wanted.type == "volume" and _is_a_name(wanted.source):
            raise mounts.invalid(
                f"mounts: {wanted.source[:64]!r} is the name of a volume, and this driver has no"
                " named volumes",
                'use a volume block of Nomad, or a path such as "local/data"',
            )
        source = host_paths.locate(wanted.source, task)
        logs = host_paths.is_in_logs(source)
        plan.found.append(
            MountPoint(
                target=point.target,
                source=plan.path_of(source),
                options=(*point.options, "ro") if logs and not point.readonly else point.options,
            )
        )
        if host_paths.holds_logs(source):
            _logs(plan, task, point.target)


def _is_a_name(source: str) -> bool:
    return "/" not in source and source not in {"local", "secrets", "tmp", "alloc", ".", ".."}


def _no_target_twice(points: Iterable[MountPoint]) -> None:
    seen: set[str] = set()
    for point in points:
        if point.target in seen:
            raise mounts.invalid(f"mounts: two of them are at {point.target[:128]}")
        seen.add(point.target)


def _devices(task: TaskConfig, options: TaskOptions, edits: cdi.Edits) -> tuple[DeviceNode, ...]:
    """Of the host if privileged, then of Nomad's device plugins, of CDI and of the job."""
    found = devices.every_host_node() if options.privileged else []
    for given in task.devices:
        found += devices.host_nodes(
            given.host_path, given.task_path, given.cgroup_permissions, what="device"
        )
    found += edits.devices
    for wanted in options.devices:
        found += devices.host_nodes(
            wanted.host_path, wanted.container_path, wanted.cgroup_permissions
        )
    return devices.unique(found)
