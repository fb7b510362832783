"""Converts mount options of a job to mounts of the OCI spec. Pure functions.

Parents come before children: a mount hides all mounts that exist below its target. A job gets only
binds and tmpfs, because the runtime would mount any other type with root's rights on the host.
"""

from __future__ import annotations

import dataclasses
import enum
import posixpath
import re
from collections.abc import Iterable

from containerd.documents import Document
from proto.errors import DriverError, start_refused
from proto.values import dataclass

TYPES = ("bind", "volume", "tmpfs")
DEFAULT_SHM_BYTES = 64 * 1024 * 1024
PROPAGATIONS = frozenset({"private", "rprivate", "slave", "rslave", "shared", "rshared"})
# Words of a volume_mount's propagation_mode in Nomad's job files and API.
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
# Hints for SELinux, see `Relabel`; for volumes and macOS: Docker on Linux accepts and ignores them.
_IGNORED = frozenset({"z", "Z", "nocopy", "consistent", "cached", "delegated"})
_TMPFS_VALUES = {
    "size": re.compile(r"[1-9][0-9]{0,17}[kKmMgGtT%]?"),
    "mode": re.compile(r"[0-7]{1,4}"),
    "uid": re.compile(r"[0-9]{1,10}"),
    "gid": re.compile(r"[0-9]{1,10}"),
    "nr_inodes": re.compile(r"[1-9][0-9]{0,17}[kKmMgG]?"),
}
# Names that a runtime creates in /dev, except /dev/shm, which a job may replace.
_RUNTIMES_OWN = frozenset(
    {
        *("null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "pts", "mqueue"),
        *("fd", "stdin", "stdout", "stderr", "core"),
    }
)
_SECURE = ("nosuid", "noexec", "nodev")
_PATH_MAX = 4096


class Reach(enum.Enum):
    """Reserved paths of the container that a mount's target may cover."""

    JOB = "none: not /sys, not /dev and not the runtime's names in /dev"
    SYS = "/sys"
    DEV = "/sys and /dev"
    ALL = "all except / and /proc"


def is_reserved(target: str, reach: Reach) -> bool:
    """Returns True if a clean target covers a path that the container itself needs."""
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
    """A mount of the OCI spec; type is `bind` or `tmpfs`, source an absolute path of the host.

    reach limits the paths to which a link may lead the target.
    """

    target: str
    source: str = ""
    type: str = "bind"
    options: tuple[str, ...] = ()
    reach: Reach = Reach.JOB

    @property
    def readonly(self) -> bool:
        """True if the task may only read; the last of `ro` and `rw` counts, as in mount(8)."""
        words = [option for option in self.options if option in {"ro", "rw"}]
        return words[-1:] == ["ro"]


def reach_of_nomad(source: str, *, privileged: bool) -> Reach:
    """Returns the reach of a mount that Nomad adds.

    A CSI plugin's task gets the host's /dev at /dev. A volume may not be mounted at /dev: the job
    chooses the volume's target and content, and the runtime opens files in /dev. Only a privileged
    task may do so.
    """
    if privileged:
        return Reach.ALL
    return Reach.DEV if posixpath.normpath(source) == "/dev" else Reach.SYS


def reach_of_job(point: MountPoint, *, privileged: bool) -> Reach:
    """Returns the reach of a job's mount; a monitor may mount the host's /sys read-only."""
    if privileged:
        return Reach.ALL
    source = "/" + posixpath.normpath(point.source).lstrip("/")
    of_sys = point.type == "bind" and (source == "/sys" or source.startswith("/sys/"))
    shared = not {"shared", "rshared"}.isdisjoint(point.options)
    return Reach.SYS if of_sys and point.readonly and not shared else Reach.JOB


def bind(
    source: str, target: str, *, readonly: bool = False, propagation: str = "rprivate"
) -> MountPoint:
    """Builds a recursive bind.

    Raises:
        DriverError: code INVALID; nothing can be mounted at the target.
    """
    return MountPoint(
        target=clean_target(target, "mount"),
        source=source,
        options=("rbind", propagation, "ro" if readonly else "rw"),
    )


def volume_mount(
    source: str, target: str, *, readonly: bool, propagation: str, privileged: bool = False
) -> MountPoint:
    """Builds the mount of Nomad's volume_mount.

    Args:
        source: absolute path of the host.
        target: path in the container.
        readonly: True for a mount that the task can only read.
        propagation: Nomad's word, as `host-to-task`; empty for private.
        privileged: True for a target at or below /dev and /sys.

    Raises:
        DriverError: code INVALID; nothing can be mounted at the target, or the word is unknown.
    """
    mode = _NOMADS_PROPAGATION.get(propagation)
    if mode is None:
        raise start_refused(
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
    """A mount in the job's config, unchecked: fstab options, and Docker's fields.

    target: path in the container.
    type: bind, volume or tmpfs; a volume is a bind of the path in `source`.
    source: a path of the node or of the task; empty for a tmpfs.
    options: as in fstab.
    readonly, propagation: Docker's fields; both win over `options`.
    tmpfs_size_bytes: 0 means no limit of the mount's own.
    tmpfs_mode: permission bits; None means the kernel's default.
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
    """Builds the OCI mount for a mount in the job's config.

    Args:
        mount: the job's own text, unchecked.
        privileged: True allows targets at or below /dev and /sys.

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
        raise start_refused(
            f"mounts: type {mount.type[:64]!r} of {where} is not one of {', '.join(TYPES)}",
        )
    if not mount.source:
        raise start_refused(f"mounts: {where} has no source")
    words = _bind_options(mount.options, where)
    if mount.readonly:
        words.append("ro")
    if mount.propagation:
        if mount.propagation not in PROPAGATIONS:
            raise start_refused(
                f"mounts: propagation {mount.propagation[:64]!r} of {where} is unknown"
            )
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
    """Removes double slashes and dots from a target, and checks the target.

    Args:
        target: path in the container.
        what: the option's name, for errors.
        reach: reserved paths that the target may cover.

    Raises:
        DriverError: code INVALID; the target is relative, has a `..`, or covers a reserved path.
    """
    if not target.startswith("/") or not target.isprintable() or len(target) > _PATH_MAX:
        raise start_refused(
            f"{what}: target {target[:128]!r} is not an absolute path of the container"
        )
    parts = [part for part in target.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise start_refused(f"{what}: target {target[:128]!r} contains '..'")
    clean = "/" + "/".join(parts)
    if is_reserved(clean, reach):
        raise start_refused(
            f"{what}: nothing can be mounted at {clean[:128]!r}: /, all of /proc and /sys, /dev and"
            " the runtime's names in /dev are the container's own",
            "choose another target. A privileged task may mount at /dev and /sys, and every task"
            " may mount the host's /sys at /sys read-only",
        )
    return clean


def by_depth(points: Iterable[MountPoint]) -> list[MountPoint]:
    """Sorts mounts, parents before children; mounts of equal depth keep their order."""
    return sorted(points, key=lambda point: posixpath.normpath(point.target).count("/"))


def oci_mounts(points: Iterable[MountPoint]) -> list[Document]:
    """Builds the `mounts` of a spec, in the order in which the runtime mounts."""
    return [_oci(p.target, p.type, p.source, p.options) for p in by_depth(points)]


def is_readonly_tree(point: MountPoint) -> bool:
    """Returns True for a read-only recursive bind."""
    return point.type == "bind" and point.readonly and "rbind" in point.options


def wholly_readonly(point: MountPoint) -> MountPoint:
    """Makes all file systems of a read-only tree read-only; `ro` alone covers only the top.

    The runtime must support `rro`, and the source must be a directory: crun fails with a file.
    """
    return dataclasses.replace(point, options=(*point.options, "rro"))


def copies_up(point: MountPoint) -> bool:
    """Returns True for a tmpfs that the runtime fills with a copy of the files at the target."""
    return point.type == "tmpfs" and "tmpcopyup" in point.options


def rootfs_propagation(points: Iterable[MountPoint]) -> str:
    """Returns the propagation of the container's root that the mounts need; empty for none.

    By default the runtime makes every mount a private slave of the host's. Later mounts on the host
    are not visible in the container then, and mounts of the container do not reach the host.
    """
    words = {option for point in points for option in point.options}
    if words & {"shared", "rshared"}:
        return "shared"
    return "rslave" if words & {"slave", "rslave"} else ""


def covers(points: Iterable[MountPoint], path: str) -> bool:
    """Returns True if a path is the target of a mount, or lies below a target."""
    return any(path == point.target or path.startswith(f"{point.target}/") for point in points)


def kernel_file_systems(
    *,
    shm_size_bytes: int = 0,
    privileged: bool = False,
    writable_cgroups: bool = False,
    shm_source: str = "",
) -> list[Document]:
    """Returns the mounts of /proc, /dev and /sys that every container has.

    A task in another IPC namespace has /dev/shm from there. A mount of mqueue always shows the
    queues of the mounting process's namespace.

    Args:
        shm_size_bytes: size of /dev/shm; 0 means 64 MiB.
        privileged: True lets the task write to /sys.
        writable_cgroups: True lets the task write to the task's cgroup.
        shm_source: path of another process's /dev/shm; empty for a new file system.
    """
    shm = "/dev/shm"  # noqa: S108
    # Whole KiB, rounded up: the kernel reads size=0 as "no limit".
    shm_kib = (shm_size_bytes or DEFAULT_SHM_BYTES) + 1023 >> 10
    access, cgroups = ("rw" if given else "ro" for given in (privileged, writable_cgroups))
    return [
        _oci("/proc", "proc", "proc", _SECURE),
        _oci("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
        _oci(
            "/dev/pts",
            "devpts",
            "devpts",
            ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        ),
        _oci(shm, "bind", shm_source, ("rbind", *_SECURE))
        if shm_source
        else _oci(shm, "tmpfs", "shm", (*_SECURE, "mode=1777", f"size={shm_kib}k")),
        _oci("/dev/mqueue", "mqueue", "mqueue", _SECURE),
        _oci("/sys", "sysfs", "sysfs", (*_SECURE, access)),
        _oci("/sys/fs/cgroup", "cgroup", "cgroup", (*_SECURE, "relatime", cgroups)),
    ]


def run_directory() -> MountPoint:
    """Returns a tmpfs at /run, for a task with a read-only root."""
    options = ("nosuid", "mode=755", "size=65536k")
    return MountPoint(target="/run", type="tmpfs", source="tmpfs", options=options)


def program(source: str, target: str) -> MountPoint:
    """Returns a bind of a host's program that the task can run and cannot change."""
    return MountPoint(target=target, source=source, options=("bind", "ro", "nosuid", "nodev"))


def _bind_options(options: tuple[str, ...], where: str) -> list[str]:
    words: list[str] = []
    for option in options:
        if option in _IGNORED:
            continue
        if option not in _BIND_FLAGS:
            raise _unknown_option(option, where, "a bind")
        words.append(option)
    return words


def _tmpfs_options(options: tuple[str, ...], where: str) -> list[str]:
    words: list[str] = []
    for option in options:
        name, equals, value = option.partition("=")
        pattern = _TMPFS_VALUES.get(name)
        if equals and pattern is not None and not pattern.fullmatch(value):
            raise start_refused(
                f"mounts: option {option[:64]!r} of {where} is no {name} of a tmpfs"
            )
        if option not in _FLAGS and not (equals and pattern) and option != "tmpcopyup":
            raise _unknown_option(option, where, "a tmpfs")
        words.append(option)
    return words


def _unknown_option(option: str, where: str, what: str) -> DriverError:
    allowed = _BIND_FLAGS if what == "a bind" else _FLAGS | {f"{name}=…" for name in _TMPFS_VALUES}
    return start_refused(
        f"mounts: {option[:64]!r} of {where} is no option of {what}",
        f"use some of {', '.join(sorted(allowed))}",
    )


def _oci(destination: str, kind: str, source: str, options: tuple[str, ...]) -> Document:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}
