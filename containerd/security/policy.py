"""What a task may do on its host: capabilities, seccomp, AppArmor, hidden paths; or privileged.

`noNewPrivileges` is false, as with Docker and Podman unless somebody asks for it: true makes
setuid bits and file capabilities void, and with them sudo, su and ping of most images. A program
that gains by such a bit gains no more than the task's bounding set, and the seccomp filter stays
in force: the runtime installs it while it still may, before the program starts.

Privileged gives what the driver itself has. An option beside it still counts: cap_drop takes from
all capabilities, seccomp and apparmor_profile confine if the job asks for them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from containerd.documents import Document
from containerd.security import capabilities, seccomp, seccomp_files
from containerd.security.seccomp import Profile
from containerd.security.seccomp_default import DEFAULT_PROFILE
from proto.errors import Code, DriverError

# They tell of the host or of other tasks, or act on the host's hardware.
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
    """What the spec of a task says about it. seccomp is OCI's document, None for no filter."""

    capabilities: tuple[str, ...] = capabilities.DEFAULT
    no_new_privileges: bool = False
    seccomp: Document | None = None
    apparmor_profile: str = ""
    masked_paths: tuple[str, ...] = MASKED_PATHS
    readonly_paths: tuple[str, ...] = READONLY_PATHS
    privileged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a job asks for, and what the operator allows."""

    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    seccomp: bool = False
    seccomp_profile: str = ""
    apparmor_profile: str = ""
    allow_privileged: bool = True
    seccomp_profile_dir: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What the kernel can do, and what this process may hand on. capabilities are by number."""

    machine: str
    kernel_release: str
    kernel_capabilities: tuple[str, ...]
    own_capabilities: frozenset[str]
    apparmor: bool


def for_task(wish: Wish) -> Security:
    """Decides for this machine. Blocks: it reads /proc, and the profile if the job names one.

    Raises:
        DriverError: code INVALID or DENIED; the job must change, or the operator's settings.
    """
    check(wish)
    profile = DEFAULT_PROFILE if wish.seccomp else None
    if wish.seccomp_profile:
        profile = seccomp_files.load(wish.seccomp_profile_dir, wish.seccomp_profile)
    return decide(wish, this_host(), profile)


def check(wish: Wish) -> None:
    """What is wrong whatever the machine.

    Raises:
        DriverError: code DENIED or INVALID.
    """
    if wish.privileged and not wish.allow_privileged:
        raise DriverError(
            "Error in creating container: Running privileged jobs are not allowed. Set"
            " allow_privileged to true in plugin config to allow running privileged jobs.",
            code=Code.DENIED,
        )
    if wish.seccomp_profile and not wish.seccomp:
        raise DriverError(
            "Error in creating container: seccomp must be set to true, if using a custom"
            " seccomp_profile.",
            code=Code.INVALID,
        )


def decide(wish: Wish, host: Host, profile: Profile | None) -> Security:
    """The pure part of `for_task`; profile is the one to filter by, if any.

    Raises:
        DriverError: code INVALID; a capability is unknown, or there is no AppArmor.
    """
    granted = capabilities.granted(
        wish.cap_add,
        wish.cap_drop,
        base=_all_of(host) if wish.privileged else capabilities.DEFAULT,
        everything=_all_of(host),
        kernel=host.kernel_capabilities,
    )
    if wish.apparmor_profile and not host.apparmor:
        raise DriverError(
            "Error in creating container: apparmor_profile: AppArmor is not enabled on this node",
            resolution="take the option away, or constrain the job to nodes with AppArmor",
            code=Code.INVALID,
        )
    document = None
    if profile is not None:
        document = seccomp.build(profile, granted, host.machine, host.kernel_release)
    return Security(
        capabilities=granted,
        seccomp=document,
        apparmor_profile=wish.apparmor_profile,
        masked_paths=() if wish.privileged else MASKED_PATHS,
        readonly_paths=() if wish.privileged else READONLY_PATHS,
        privileged=wish.privileged,
    )


def _all_of(host: Host) -> tuple[str, ...]:
    return tuple(name for name in host.kernel_capabilities if name in host.own_capabilities)


def this_host() -> Host:
    """The machine and the process that this runs in."""
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
