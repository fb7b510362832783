"""What is mounted in a container, as pure functions: options of a job in, OCI mounts out.

Parents come before children, so that nothing hides what was mounted below it earlier. Only binds
and tmpfs are made for a job: the runtime would mount any other type with the host's own power.
"""

from __future__ import annotations

import dataclasses
import enum
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass

from containerd.documents import Document
from proto.errors import Code, DriverError

TYPES = ("bind", "volume", "tmpfs")
DEFAULT_SHM_BYTES = 64 * 1024 * 1024
PROPAGATIONS = frozenset({"private", "rprivate", "slave", "rslave", "shared", "rshared"})
# Nomad's words of a volume_mount, in its own job files and in its API.
_NOMADS_PROPAGATION = {
    "": "rprivate",
    "private": "rprivate",
    "host-to-task": "rslave",
    "bidirectional": "rshared",
}
_FLAGS = frozenset(
    {
        *("ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "defaults"),
        *("atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime"),
        *("strictatime", "nostrictatime", "sync", "async", "dirsync"),
    }
)
_BIND_FLAGS = _FLAGS | PROPAGATIONS | {"bind", "rbind"}
# Hints for other systems; Docker on Linux takes and ignores them where they say nothing.
_IGNORED = frozenset({"z", "Z", "nocopy", "consistent", "cached", "delegated"})
_TMPFS_VALUES = {
    "size": re.compile(r"[1-9][0-9]{0,17}[kKmMgGtT%]?"),
    "mode": re.compile(r"[0-7]{1,4}"),
    "uid": re.compile(r"[0-9]{1,10}"),
    "gid": re.compile(r"[0-9]{1,10}"),
    "nr_inodes": re.compile(r"[1-9][0-9]{0,17}[kKmMgG]?"),
}
# What a runtime makes in /dev, beside /dev/shm, which a job may replace.
_RUNTIMES_OWN = frozenset(
    {
        *("null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "pts", "mqueue"),
        *("fd", "stdin", "stdout", "stderr", "core"),
    }
)
_SECURE = ("nosuid", "noexec", "nodev")
_PATH_MAX = 4096


class Reach(enum.Enum):
    """How far the targets of mounts reach into what a container is made of."""

    JOB = "neither /dev itself nor what the runtime makes there, nor /sys"
    SYS = "as JOB, and /sys"
    DEV = "as SYS, and /dev itself"
    ALL = "all but / and /proc"


def is_reserved(target: str, reach: Reach) -> bool:
    """Returns whether a clean target covers what the container itself needs there."""
    parts = target.strip("/").split("/")
    if parts[0] in {"", "proc"}:
        return True
    if parts[0] == "sys":
        return reach is Reach.JOB
    if parts == ["dev"]:
        return reach in {Reach.JOB, Reach.SYS}
    return parts[0] == "dev" and parts[1] in _RUNTIMES_OWN and reach is not Reach.ALL


@dataclass(frozen=True, slots=True, kw_only=True)
class MountPoint:
    """A mount in the container; type is `bind` or `tmpfs`, source an absolute path of the host.

    reach is where a link may lead its target.
    """

    target: str
    source: str = ""
    type: str = "bind"
    options: tuple[str, ...] = ()
    reach: Reach = Reach.JOB

    @property
    def readonly(self) -> bool:
        """Returns whether the task may only read; the last word counts, as in mount(8)."""
        words = [option for option in self.options if option in {"ro", "rw"}]
        return words[-1:] == ["ro"]


def reach_of_nomad(source: str, *, privileged: bool) -> Reach:
    """How far a mount of Nomad's own goes: its CSI plugins have the host's /dev at /dev.

    The job chooses the place of a volume, and what it holds: such a one is no /dev, unless the task
    is privileged. There the runtime opens what it finds.
    """
    if privileged:
        return Reach.ALL
    return Reach.DEV if posixpath.normpath(source) == "/dev" else Reach.SYS


def reach_of_job(point: MountPoint, *, privileged: bool) -> Reach:
    """How far a mount of a job goes: to the host's own /sys for reading, as monitors have it."""
    if privileged:
        return Reach.ALL
    source = "/" + posixpath.normpath(point.source).lstrip("/")
    of_sys = point.type == "bind" and (source == "/sys" or source.startswith("/sys/"))
    shared = not {"shared", "rshared"}.isdisjoint(point.options)
    return Reach.SYS if of_sys and point.readonly and not shared else Reach.JOB


def bind(
    source: str, target: str, *, readonly: bool = False, propagation: str = "rprivate"
) -> MountPoint:
    """A bind with all that is mounted below its source.

    Raises:
        DriverError: code INVALID; the target is no place for a mount.
    """
    return MountPoint(
        target=clean_target(target, "mount"),
        source=source,
        options=("rbind", propagation, "ro" if readonly else "rw"),
    )


def volume_mount(
    source: str, target: str, *, readonly: bool, propagation: str, privileged: bool = False
) -> MountPoint:
    """A volume_mount of Nomad; propagation is one of its words.

    Raises:
        DriverError: code INVALID; the target is no place for a mount, or the word is unknown.
    """
    mode = _NOMADS_PROPAGATION.get(propagation)
    if mode is None:
        raise invalid(
            f"volume_mount: propagation_mode {propagation[:64]!r} is none of private, host-to-task"
            " and bidirectional"
        )
    reach = reach_of_nomad(source, privileged=privileged)
    return MountPoint(
        target=clean_target(target, "volume_mount", reach),
        source=source,
        options=("rbind", mode, "ro" if readonly else "rw"),
        reach=reach,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MountOption:
    """A mount as the job wrote it, unchecked: fstab options, or Docker's fields beside them.

    type: bind, volume or tmpfs; a volume is a bind of the path in `source`.
    source: a path of the node, or of the task; empty for a tmpfs.
    options: as in fstab.
    readonly, propagation: Docker's fields; they count after `options`.
    tmpfs_size_bytes: 0 is no limit of its own.
    tmpfs_mode: permission bits; None is the kernel's default.
    """

    target: str
    type: str = "volume"
    source: str = ""
    options: tuple[str, ...] = ()
    readonly: bool = False
    propagation: str = ""
    tmpfs_size_bytes: int = 0
    tmpfs_mode: int | None = None


def job_mount(mount: MountOption, *, privileged: bool = False) -> MountPoint:
    """Builds the OCI mount of a mount in the job's config.

    Args:
        mount: as the job wrote it.
        privileged: True lets the target be /dev, /sys or below them.

    Raises:
        DriverError: code INVALID; the message names the wrong option.
    """
    where = clean_target(mount.target, "mounts", Reach.ALL)
    if mount.type == "tmpfs":
        words = _tmpfs_options(mount.options, where)
        if not mount.options:
            words = [*_SECURE, "rw"]
        if mount.readonly:
            words.append("ro")
        if mount.tmpfs_size_bytes > 0:
            words.append(f"size={mount.tmpfs_size_bytes}")
        if mount.tmpfs_mode is not None:
            words.append(f"mode={mount.tmpfs_mode:o}")
        point = MountPoint(target=where, source="tmpfs", type="tmpfs", options=tuple(words))
        return _with_reach(point, privileged=privileged)
    if mount.type not in TYPES:
        raise invalid(
            f"mounts: type {mount.type[:64]!r} of {where} is not one of {', '.join(TYPES)}",
        )
    if not mount.source:
        raise invalid(f"mounts: {where} has no source")
    words = _bind_options(mount.options, where)
    if mount.readonly:
        words.append("ro")
    if mount.propagation:
        if mount.propagation not in PROPAGATIONS:
            raise invalid(f"mounts: propagation {mount.propagation[:64]!r} of {where} is unknown")
        words.append(mount.propagation)
    if PROPAGATIONS.isdisjoint(words):
        words.append("rprivate")
    if {"bind", "rbind"}.isdisjoint(words):
        words.insert(0, "rbind")
    point = MountPoint(target=where, source=mount.source, options=tuple(words))
    return _with_reach(point, privileged=privileged)


def _with_reach(point: MountPoint, *, privileged: bool) -> MountPoint:
    reach = reach_of_job(point, privileged=privileged)
    clean_target(point.target, "mounts", reach)
    return dataclasses.replace(point, reach=reach)


def clean_target(target: str, what: str, reach: Reach = Reach.JOB) -> str:
    """The target without double slashes and dots.

    Raises:
        DriverError: code INVALID; it is relative, climbs, or covers what a container is made of.
    """
    if not target.startswith("/") or not target.isprintable() or len(target) > _PATH_MAX:
        raise invalid(f"{what}: target {target[:128]!r} is not an absolute path of the container")
    parts = [part for part in target.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise invalid(f"{what}: target {target[:128]!r} has a '..' in it")
    clean = "/" + "/".join(parts)
    if is_reserved(clean, reach):
        raise invalid(
            f"{what}: nothing can be mounted at {clean[:128]!r}: /, all of /proc and /sys, /dev and"
            " what the runtime makes in it are the container's own",
            "mount it elsewhere. A privileged task may mount at /dev and /sys, and every task may"
            " mount the host's /sys there read-only",
        )
    return clean


def by_depth(points: Iterable[MountPoint]) -> list[MountPoint]:
    """Parents before children; mounts of one depth keep their order."""
    return sorted(points, key=lambda point: posixpath.normpath(point.target).count("/"))


def oci_mounts(points: Iterable[MountPoint]) -> list[Document]:
    """The mounts of a spec, in the order in which the runtime makes them."""
    return [_oci(p.target, p.type, p.source, p.options) for p in by_depth(points)]


def is_readonly_tree(point: MountPoint) -> bool:
    """Returns whether a mount is read-only, and shows what is mounted below its source."""
    return point.type == "bind" and point.readonly and "rbind" in point.options


def wholly_readonly(point: MountPoint) -> MountPoint:
    """A read-only tree whose other file systems are read-only too; by `ro` the uppermost only is.

    The runtime has to know `rro`, and the source must be a directory: crun fails with a file.
    """
    return dataclasses.replace(point, options=(*point.options, "rro"))


def copies_up(point: MountPoint) -> bool:
    """Whether a mount begins with a copy of what its target shows without it."""
    return point.type == "tmpfs" and "tmpcopyup" in point.options


def rootfs_propagation(points: Iterable[MountPoint]) -> str:
    """What the container's root must be for its mounts to see, or show, later ones; or empty.

    The runtime makes every mount a slave of the host's unless told otherwise, and what a slave
    shares does not reach the host.
    """
    words = {option for point in points for option in point.options}
    if words & {"shared", "rshared"}:
        return "shared"
    return "rslave" if words & {"slave", "rslave"} else ""


def covers(points: Iterable[MountPoint], path: str) -> bool:
    """Returns whether a path is the place of a mount or lies below one."""
    return any(path == point.target or path.startswith(f"{point.target}/") for point in points)


def kernel_file_systems(
    *,
    shm_size_bytes: int = 0,
    privileged: bool = False,
    host_ipc: bool = False,
) -> list[Document]:
    """Returns what every container has below /proc, /dev and /sys; a shm size of 0 is 64 MiB.

    A privileged task may write to /sys and to its cgroup. With the host's IPC namespace, shared
    memory is the host's; a mount of mqueue shows the queues of the namespace it is made in.
    """
    shm = "/dev/shm"  # noqa: S108
    # Whole KiB, rounded up: a size of 0 would be no limit at all.
    shm_kib = (shm_size_bytes or DEFAULT_SHM_BYTES) + 1023 >> 10
    access = "rw" if privileged else "ro"
    return [
        _oci("/proc", "proc", "proc", _SECURE),
        _oci("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
        _oci(
            "/dev/pts",
            "devpts",
            "devpts",
            ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        ),
        _oci(shm, "bind", shm, ("rbind", *_SECURE))
        if host_ipc
        else _oci(shm, "tmpfs", "shm", (*_SECURE, "mode=1777", f"size={shm_kib}k")),
        _oci("/dev/mqueue", "mqueue", "mqueue", _SECURE),
        _oci("/sys", "sysfs", "sysfs", (*_SECURE, access)),
        _oci("/sys/fs/cgroup", "cgroup", "cgroup", (*_SECURE, "relatime", access)),
    ]


def run_directory() -> MountPoint:
    """A /run that programs can write to."""
    options = ("nosuid", "mode=755", "size=65536k")
    return MountPoint(target="/run", type="tmpfs", source="tmpfs", options=options)


def program(source: str, target: str) -> MountPoint:
    """A program of the host's, for the task to run and not to change."""
    return MountPoint(target=target, source=source, options=("bind", "ro", "nosuid", "nodev"))


def invalid(text: str, resolution: str = "") -> DriverError:
    """The error of a start whose job has a wrong mount or device."""
    return DriverError(
        f"Error in creating container: {text}", resolution=resolution, code=Code.INVALID
    )


def _bind_options(options: tuple[str, ...], where: str) -> list[str]:
    found: list[str] = []
    for option in options:
        if option in _IGNORED:
            continue
        if option not in _BIND_FLAGS:
            raise _no_option(option, where, "a bind")
        found.append(option)
    return found


def _tmpfs_options(options: tuple[str, ...], where: str) -> list[str]:
    found: list[str] = []
    for option in options:
        name, equals, value = option.partition("=")
        pattern = _TMPFS_VALUES.get(name)
        if equals and pattern is not None and not pattern.fullmatch(value):
            raise invalid(f"mounts: option {option[:64]!r} of {where} is no {name} of a tmpfs")
        if option not in _FLAGS and not (equals and pattern) and option != "tmpcopyup":
            raise _no_option(option, where, "a tmpfs")
        found.append(option)
    return found


def _no_option(option: str, where: str, what: str) -> DriverError:
    allowed = _BIND_FLAGS if what == "a bind" else _FLAGS | {f"{name}=…" for name in _TMPFS_VALUES}
    return invalid(
        f"mounts: {option[:64]!r} of {where} is no option of {what}",
        f"use some of {', '.join(sorted(allowed))}",
    )


def _oci(destination: str, kind: str, source: str, options: tuple[str, ...]) -> Document:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}
