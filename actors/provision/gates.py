"""Checks a job against the operator's gates, before anything is created or pulled.

A source of the node is compared with the path that the kernel reached, and pinned from that path
without following a link: the job, or another task, can change links after the comparison.
"""

from __future__ import annotations

import dataclasses
import os
import posixpath
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from actors.model import confinement
from actors.provision import mount_sources, shared_namespaces
from containerd import reference
from proto.errors import Code, DriverError, start_refused

if TYPE_CHECKING:
    from actors.model.confinement import Wishes
    from actors.model.gates import Gates
    from actors.model.settings import TaskOptions
    from actors.provision.mount_sources import Source

_OTHERS = (shared_namespaces.CONTAINER, shared_namespaces.PATH)


def check(gates: Gates, options: TaskOptions) -> None:
    """Checks the options that need no look at the node; `volume` checks the sources of mounts.

    Raises:
        DriverError: code DENIED; the text names the option and the gate.
    """
    _modes(gates, options)
    _privileges(gates, options)
    _confinement(gates, confinement.wishes(options))
    if options.host_network and not gates.allow_host_network:
        by_mode = options.network_mode == "host"
        option = 'network_mode = "host"' if by_mode else "host_network = true"
        raise refused(option, "allow_host_network is false")
    if options.memory_hard_limit_mb and not gates.allow_memory_hard_limit:
        raise refused("memory_hard_limit", "allow_memory_hard_limit is false")
    _listed("sysctl", options.sysctl, "allow_sysctls", gates.allow_sysctls)
    _listed("annotations", options.annotations, "allow_annotations", gates.allow_annotations or ())
    names = (posixpath.normpath(option.host_path) for option in options.devices)
    _listed("devices", (*names, *options.cdi_devices), "allow_devices", gates.allow_devices)
    if options.snapshotter:
        _listed(
            "snapshotter", [options.snapshotter], "allow_snapshotters", gates.allow_snapshotters
        )
    if gates.allow_registries is not None and not options.load:
        _registry(gates.allow_registries, options.image)
    if gates.pids_limit and options.pids_limit > gates.pids_limit:
        raise start_refused(
            f"pids_limit cannot be greater than nomad plugin config pids_limit: {gates.pids_limit}",
            code=Code.DENIED,
        )


def volume(gates: Gates, source: Source) -> Source:
    """Checks the source of a job's mount. Blocks where the operator allows some paths only.

    Returns:
        The source; the path that the kernel reached, to be pinned, where only some are allowed.

    Raises:
        DriverError: code DENIED, or INVALID for a source that does not exist.
    """
    if source.root:
        return source
    if not gates.volumes:
        raise refused(f"{source.what}: {source.path[:128]!r}", "volumes { enabled } is false")
    if not gates.volume_paths:
        return source
    real = mount_sources.reached(source)
    if not any(_matches(str(path), gates.volume_paths) for path in (real, *real.parents)):
        what = f"{source.what}: {source.path[:128]!r}"
        if str(real) != source.path:
            what += f", which is {str(real)[:128]!r},"
        raise refused(what, _shown("volumes { allowed_paths }", gates.volume_paths))
    below = os.path.relpath(real, "/")
    return dataclasses.replace(source, path=below, root="/", with_mounts=True)


def refused(what: str, gate: str) -> DriverError:
    """Builds the error of an option that a gate forbids.

    Args:
        what: the option with its value.
        gate: the gate, and its value.
    """
    return start_refused(
        f"{what} is not allowed on this node: {gate} in the driver's plugin block",
        "remove the option, or ask the operator of the node",
        code=Code.DENIED,
    )


def check_shared(gates: Gates, kinds: Iterable[str]) -> None:
    """Checks namespaces that a task shares with another process.

    Args:
        gates: the operator's gates.
        kinds: the kinds of namespaces that are the node's own; the other process may have got them
            while a gate was open.

    Raises:
        DriverError: code DENIED.
    """
    for kind in kinds:
        if kind != "network":
            allowed = gates.pid_modes if kind == "pid" else gates.ipc_modes
            _mode(gates, f"{kind}_mode", "host", allowed)
        elif not gates.allow_host_network:
            raise refused("network_mode: the network of the node", "allow_host_network is false")


def _modes(gates: Gates, options: TaskOptions) -> None:
    # Another allocation's network may be the host's, and has services on its loopback.
    others = options.network_mode if options.network_mode.startswith(_OTHERS) else ""
    if others and not gates.allow_host_network:
        raise refused(f"network_mode = {others[:128]!r}", "allow_host_network is false")
    _mode(gates, "pid_mode", options.pid_mode, gates.pid_modes)
    _mode(gates, "ipc_mode", options.ipc_mode, gates.ipc_modes)
    _mode(gates, "uts_mode", options.uts_mode, gates.uts_modes)
    _mode(gates, "cgroupns", options.cgroupns, gates.cgroup_modes)
    _mode(gates, "network_mode", others, gates.network_modes)


def _mode(gates: Gates, name: str, mode: str, allowed: tuple[str, ...]) -> None:
    if mode and not gates.allow_privileged and not _matches(mode, allowed):
        raise start_refused(
            f'cannot apply "{name}" configuration: {mode[:128]!r} is not allowed on this node',
            f"remove {name}; or the operator sets allowed_modes"
            f' {{ {name.removesuffix("_mode")} = ["{mode[:128]}"] }}, or allow_privileged = true',
            code=Code.DENIED,
        )


def _privileges(gates: Gates, options: TaskOptions) -> None:
    """Checks the items of `security_opt` that give a job more rights.

    A writable /proc/sys or cgroup leads root in a container to the node, as `privileged` does:
    by kernel.core_pattern, for example.
    """
    wanted = options.security_opt
    if gates.no_new_privileges and wanted.no_new_privileges is False:
        raise refused("security_opt: no-new-privileges=false", "no_new_privileges is true")
    for item, given in (
        ("systempaths=unconfined", wanted.system_paths),
        ("writable-cgroups", wanted.writable_cgroups),
    ):
        if given and not gates.allow_privileged:
            raise refused(f"security_opt: {item}", "allow_privileged is false")


def _confinement(gates: Gates, wishes: Wishes) -> None:
    if not gates.allow_unconfined:
        free_of_profile = wishes.apparmor == ""
        for name, free in (("seccomp", wishes.seccomp is False), ("apparmor", free_of_profile)):
            if free:
                raise refused(f"security_opt: {name}=unconfined", "allow_unconfined is false")
    if wishes.apparmor and wishes.apparmor != gates.default_apparmor:
        _listed("apparmor_profile", [wishes.apparmor], "allow_apparmor", gates.allow_apparmor)


def _listed(option: str, values: Iterable[str], gate: str, allowed: tuple[str, ...] | None) -> None:
    if allowed is None:
        return
    for value in values:
        if not _matches(value, allowed):
            raise refused(f"{option}: {value[:128]!r}", _shown(gate, allowed))


def _registry(allowed: tuple[str, ...], image: str) -> None:
    name = reference.parse(image)
    places = (name.registry, f"{name.registry}/{name.repository}")
    if not any(_matches(place, allowed) for place in places):
        raise refused(f"image: {places[1][:128]!r}", _shown("allow_registries", allowed))


def _matches(value: str, allowed: Iterable[str]) -> bool:
    return any(fnmatchcase(value, pattern) for pattern in allowed)


def _shown(gate: str, allowed: tuple[str, ...]) -> str:
    return f"{gate} is {', '.join(allowed)[:256] or 'empty'}"
