"""Merges a job's options of confinement with the operator's: filters, profiles, privileges.

A job may write the same wish as an option of this driver, such as `seccomp_profile`, and as an item
of `security_opt`. Two wishes that contradict each other are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from containerd.security import selinux
from containerd.security.apparmor import UNCONFINED
from containerd.security.policy import SecurityRequest
from containerd.security.selinux import Contexts
from proto.errors import Code, start_refused
from proto.values import dataclass

if TYPE_CHECKING:
    from actors.model.nomad import TaskConfig
    from actors.model.settings import DriverSettings, TaskOptions
    from proto.errors import DriverError

BUILTIN = "builtin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """A job's own wishes. None is no wish.

    seccomp: False for no filter.
    seccomp_profile: path of a profile; empty for the default profile.
    apparmor: name of a profile; empty for no profile.
    """

    seccomp: bool | None = None
    seccomp_profile: str = ""
    apparmor: str | None = None


def wishes(options: TaskOptions) -> Wishes:
    """Returns the wishes of a job.

    Raises:
        DriverError: code INVALID; two options contradict each other.
    """
    wanted = options.security_opt
    apparmor = options.apparmor_profile or wanted.apparmor
    if options.apparmor_profile and wanted.apparmor not in {"", apparmor}:
        raise _contradiction(f"apparmor={wanted.apparmor[:64]}", f"apparmor_profile = {apparmor!r}")
    seccomp: bool | None = options.seccomp or None
    profile = options.seccomp_profile
    if wanted.seccomp == UNCONFINED:
        if options.seccomp or profile:
            raise _contradiction("seccomp=unconfined", "seccomp and seccomp_profile")
        seccomp = False
    elif wanted.seccomp:
        path = "" if wanted.seccomp == BUILTIN else wanted.seccomp
        if profile not in {"", path}:
            raise _contradiction(
                f"seccomp={wanted.seccomp[:64]}", f"seccomp_profile = {profile[:64]!r}"
            )
        seccomp, profile = True, path
    return Wishes(
        seccomp=seccomp,
        seccomp_profile=profile,
        apparmor=("" if apparmor == UNCONFINED else apparmor) if apparmor else None,
    )


def request(settings: DriverSettings, options: TaskOptions, namespace: str = "") -> SecurityRequest:
    """Returns the rights that a job wants, beside the operator's limits for them.

    Args:
        settings: the driver's settings.
        options: the job's options.
        namespace: Nomad's namespace of the job.

    Raises:
        DriverError: code INVALID; two options contradict each other.
    """
    allow = settings.gates_of(namespace)
    own = wishes(options)
    by_default = not options.privileged  # as with Docker
    return SecurityRequest(
        privileged=options.privileged,
        cap_add=options.cap_add,
        cap_drop=options.cap_drop,
        seccomp=allow.default_seccomp and by_default if own.seccomp is None else own.seccomp,
        seccomp_profile=own.seccomp_profile,
        apparmor_profile=own.apparmor or "",
        default_apparmor=allow.default_apparmor if by_default and own.apparmor is None else "",
        system_paths=options.security_opt.system_paths,
        writable_cgroups=options.security_opt.writable_cgroups,
        allow_privileged=allow.allow_privileged,
        allow_caps=allow.allow_caps,
        no_new_privileges=allow.no_new_privileges or bool(options.security_opt.no_new_privileges),
        seccomp_profile_dir=settings.seccomp_profile_dir,
    )


def contexts(settings: DriverSettings, task: TaskConfig, options: TaskOptions) -> Contexts:
    """Returns the SELinux contexts of a task; empty without SELinux on the node. Blocks.

    As with Docker, a task that shares much with the node is not confined, unless the job asks.

    Raises:
        DriverError: code DENIED; the operator forbids options of contexts. Code PRECONDITION; the
            policy has no contexts of containers. Code INVALID; the policy does not know the context
            that the job wants.
    """
    if not settings.selinux_enabled or not selinux.is_enabled():
        return Contexts()
    wanted = (*options.selinux_opts, *options.security_opt.labels)
    if wanted and not settings.gates_of(task.namespace).allow_privileged:
        raise start_refused(
            f"selinux_opts: {wanted[0][:64]!r} is not allowed on this node: allow_privileged is"
            " false in the driver's plugin block",
            "remove selinux_opts and security_opt label, or ask the operator of the node",
            code=Code.DENIED,
        )
    if not wanted and (options.privileged or "host" in {options.pid_mode, options.ipc_mode}):
        wanted = (selinux.DISABLE,)
    found = selinux.of_task(selinux.of_containers(), task.alloc_id, wanted)
    if context := selinux.unknown(found):
        problem = f"the SELinux policy of this node does not know the context {context[:256]}"
        if not wanted or selinux.DISABLE in wanted:
            raise selinux.no_contexts(problem)
        raise start_refused(
            f"selinux_opts: {problem}", "correct selinux_opts and security_opt label"
        )
    return found


def _contradiction(item: str, other: str) -> DriverError:
    return start_refused(
        f"security_opt: {item} contradicts {other}", "remove one of the two options"
    )
