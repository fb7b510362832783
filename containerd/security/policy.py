"""Decides a task's rights on the host: capabilities, seccomp, AppArmor, hidden paths, privileged.

`noNewPrivileges` is false, the default of Docker and Podman too, unless the operator sets
`no_new_privileges`, or the job sets `security_opt`. True disables setuid bits and file
capabilities, and so breaks sudo, su and ping of most images. A setuid program gains at most the
task's bounding set. The seccomp filter stays in force: the runtime installs the filter before the
program starts, while the runtime still has the right to do so.

A privileged task has the driver's own capabilities. The other options still count: cap_drop removes
capabilities, and seccomp and apparmor_profile confine the task if the job sets them.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from containerd.documents import Document
from containerd.security import capabilities, seccomp, seccomp_files
from containerd.security.seccomp import Profile
from containerd.security.seccomp_default import DEFAULT_PROFILE
from proto.errors import Code, start_refused
from proto.values import dataclass

# Files that reveal the host or other tasks, or that control the host's hardware.
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/proc/scsi",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """A task's rights, as the spec has them; seccomp is OCI's document, None for no filter."""

    capabilities: tuple[str, ...] = capabilities.DEFAULT
    no_new_privileges: bool = False
    seccomp: Document | None = None
    apparmor_profile: str = ""
    masked_paths: tuple[str, ...] = MASKED_PATHS
    readonly_paths: tuple[str, ...] = READONLY_PATHS
    writable_cgroups: bool = False
    privileged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityRequest:
    """Options of a job, and the operator's gates.

    default_apparmor: the node's profile, which is left out where the kernel has no AppArmor.
    system_paths: True hides no path, and makes none read-only.
    allow_caps: the capabilities that a task may have, or `all`; None allows all.
    """

    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    seccomp: bool = False
    seccomp_profile: str = ""
    apparmor_profile: str = ""
    default_apparmor: str = ""
    system_paths: bool = False
    writable_cgroups: bool = False
    allow_privileged: bool = True
    allow_caps: tuple[str, ...] | None = None
    no_new_privileges: bool = False
    seccomp_profile_dir: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Features of the kernel, and capabilities of this process. Tuples are in numeric order."""

    machine: str
    kernel_release: str
    kernel_capabilities: tuple[str, ...]
    own_capabilities: frozenset[str]
    apparmor: bool


def for_task(request: SecurityRequest) -> Security:
    """Decides a task's rights on this machine. Blocks: reads /proc, and a custom seccomp profile.

    Raises:
        DriverError: code INVALID or DENIED; the job or the operator's settings must change.
    """
    check(request)
    profile = DEFAULT_PROFILE if request.seccomp else None
    if request.seccomp_profile:
        profile = seccomp_files.load(request.seccomp_profile_dir, request.seccomp_profile)
    return decide(request, this_host(), profile)


def check(request: SecurityRequest) -> None:
    """Checks the options that are wrong on every machine.

    Raises:
        DriverError: code DENIED; the operator forbids privileged tasks. Code INVALID; a profile is
            set without seccomp.
    """
    if request.privileged and not request.allow_privileged:
        raise start_refused(
            "Running privileged jobs are not allowed. Set allow_privileged to true in plugin config"
            " to allow running privileged jobs.",
            code=Code.DENIED,
        )
    if request.seccomp_profile and not request.seccomp:
        raise start_refused("seccomp must be set to true, if using a custom seccomp_profile.")


def decide(request: SecurityRequest, host: Host, profile: Profile | None) -> Security:
    """Decides a task's rights for a given host. Pure.

    Args:
        request: the job's options.
        host: the machine.
        profile: the profile of the seccomp filter; None for no filter.

    Raises:
        DriverError: code INVALID; a capability is unknown, or the host has no AppArmor.
    """
    base = capabilities.allowed(request.allow_caps, request.cap_add, host.kernel_capabilities)
    granted = capabilities.granted(
        request.cap_add,
        request.cap_drop,
        base=_all_of(host) if request.privileged else base,
        everything=_all_of(host),
        kernel=host.kernel_capabilities,
    )
    if request.apparmor_profile and not host.apparmor:
        raise start_refused(
            "apparmor_profile: AppArmor is not enabled on this node",
            "remove the option, or constrain the job to nodes with AppArmor",
        )
    default = request.default_apparmor if host.apparmor else ""
    document, all_paths = None, request.privileged or request.system_paths
    if profile is not None:
        document = seccomp.build(profile, granted, host.machine, host.kernel_release)
    return Security(
        capabilities=granted,
        no_new_privileges=request.no_new_privileges,
        seccomp=document,
        apparmor_profile=request.apparmor_profile or default,
        masked_paths=() if all_paths else MASKED_PATHS,
        readonly_paths=() if all_paths else READONLY_PATHS,
        writable_cgroups=request.privileged or request.writable_cgroups,
        privileged=request.privileged,
    )


def _all_of(host: Host) -> tuple[str, ...]:
    return tuple(name for name in host.kernel_capabilities if name in host.own_capabilities)


@functools.cache
def this_host() -> Host:
    """Reads the kernel's features and the capabilities of this process; none of them changes."""
    names = os.uname()
    return Host(
        machine=names.machine,
        kernel_release=names.release,
        kernel_capabilities=capabilities.of_kernel(
            int(Path("/proc/sys/kernel/cap_last_cap").read_text())
        ),
        own_capabilities=capabilities.effective(Path("/proc/self/status").read_text()),
        apparmor=apparmor_is_enabled(),
    )


def apparmor_is_enabled(root: Path = Path("/")) -> bool:
    """Returns True if the kernel enforces AppArmor profiles.

    Args:
        root: root of the machine's files; tests use another directory.
    """
    try:
        return (root / "sys/module/apparmor/parameters/enabled").read_text().startswith("Y")
    except OSError:
        return False
