"""Checks a job against the operator's gates, before anything is created or pulled.

A source of the node is compared with the path that the kernel reached, and pinned from that path
without following a link: the job, or another task, can change links after the comparison.
"""

from __future__ import annotations

import dataclasses
import os
import posixpath
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

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
_MAX_REFUSALS = 20


class _Refusal(NamedTuple):
    """A closed gate in the way of a job: the option with the gate, and the remedy."""

    text: str
    remedy: str


def check(gates: Gates, options: TaskOptions) -> None:
    """Checks the options that need no look at the node; `volume` checks the sources of mounts.

    Raises:
        DriverError: code DENIED; the text names each forbidden option and its gate.
    """
    refusals = list(islice(_refusals(gates, options), _MAX_REFUSALS + 1))
    if len(refusals) > _MAX_REFUSALS:
        refusals[-1] = refusals[-1]._replace(text="and more")
    if refusals:
        raise _error(*refusals)


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
        what = f"{source.what}: {source.path[:128]!r}"
        raise _error(_refusal(what, "volumes { enabled } is false"))
    if not gates.volume_paths:
        return source
    real = mount_sources.reached(source)
    if not any(_matches(str(path), gates.volume_paths) for path in (real, *real.parents)):
        what = f"{source.what}: {source.path[:128]!r}"
        if str(real) != source.path:
            what += f", which is {str(real)[:128]!r},"
        raise _error(_refusal(what, _shown("volumes { allowed_paths }", gates.volume_paths)))
    below = os.path.relpath(real, "/")
    return dataclasses.replace(source, path=below, root="/", with_mounts=True)


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
            for refusal in _mode(gates, f"{kind}_mode", "host", allowed):
                raise _error(refusal)
        elif not gates.allow_host_network:
            what = "network_mode: the network of the node"
            raise _error(_refusal(what, "allow_host_network is false"))


def _error(*refusals: _Refusal) -> DriverError:
    return start_refused(
        "; ".join(refusal.text for refusal in refusals),
        "; ".join(dict.fromkeys(refusal.remedy for refusal in refusals)),
        code=Code.DENIED,
    )


def _refusal(what: str, gate: str) -> _Refusal:
    """Builds the refusal of an option that a gate forbids.

    Args:
        what: the option with its value.
        gate: the gate, and its value.
    """
    return _Refusal(
        f"{what} is not allowed on this node: {gate} in the driver's plugin block",
        "remove the option, or ask the operator of the node",
    )


def _refusals(gates: Gates, options: TaskOptions) -> Iterator[_Refusal]:
    yield from _modes(gates, options)
    yield from _privileges(gates, options)
    yield from _confinement(gates, confinement.wishes(options))
    if options.host_network and not gates.allow_host_network:
        by_mode = options.network_mode == "host"
        option = 'network_mode = "host"' if by_mode else "host_network = true"
        yield _refusal(option, "allow_host_network is false")
    if options.memory_hard_limit_mb and not gates.allow_memory_hard_limit:
        yield _refusal("memory_hard_limit", "allow_memory_hard_limit is false")
    yield from _listed("sysctl", options.sysctl, "allow_sysctls", gates.allow_sysctls)
    yield from _listed(
        "annotations", options.annotations, "allow_annotations", gates.allow_annotations or ()
    )
    names = (posixpath.normpath(option.host_path) for option in options.devices)
    devices = (*names, *options.cdi_devices)
    yield from _listed("devices", devices, "allow_devices", gates.allow_devices)
    if options.snapshotter:
        yield from _listed(
            "snapshotter", [options.snapshotter], "allow_snapshotters", gates.allow_snapshotters
        )
    if gates.allow_registries is not None and not options.load:
        yield from _registry(gates.allow_registries, options.image)
    if gates.pids_limit and options.pids_limit > gates.pids_limit:
        limit = gates.pids_limit
        yield _Refusal(
            f"pids_limit cannot be greater than nomad plugin config pids_limit: {limit}",
            "set a smaller pids_limit, or ask the operator of the node",
        )


def _modes(gates: Gates, options: TaskOptions) -> Iterator[_Refusal]:
    # Another allocation's network may be the host's, and has services on its loopback.
    others = options.network_mode if options.network_mode.startswith(_OTHERS) else ""
    if others and not gates.allow_host_network:
        yield _refusal(f"network_mode = {others[:128]!r}", "allow_host_network is false")
    yield from _mode(gates, "pid_mode", options.pid_mode, gates.pid_modes)
    yield from _mode(gates, "ipc_mode", options.ipc_mode, gates.ipc_modes)
    yield from _mode(gates, "uts_mode", options.uts_mode, gates.uts_modes)
    yield from _mode(gates, "cgroupns", options.cgroupns, gates.cgroup_modes)
    yield from _mode(gates, "network_mode", others, gates.network_modes)


def _mode(gates: Gates, name: str, mode: str, allowed: tuple[str, ...]) -> Iterator[_Refusal]:
    if mode and not gates.allow_privileged and not _matches(mode, allowed):
        yield _Refusal(
            f'cannot apply "{name}" configuration: {mode[:128]!r} is not allowed on this node',
            f"remove {name}; or the operator sets allowed_modes"
            f' {{ {name.removesuffix("_mode")} = ["{mode[:128]}"] }}, or allow_privileged = true',
        )


def _privileges(gates: Gates, options: TaskOptions) -> Iterator[_Refusal]:
    """Yields refusals of the items of `security_opt` that give a job more rights.

    A writable /proc/sys or cgroup leads root in a container to the node, as `privileged` does:
    by kernel.core_pattern, for example.
    """
    wanted = options.security_opt
    if gates.no_new_privileges and wanted.no_new_privileges is False:
        yield _refusal("security_opt: no-new-privileges=false", "no_new_privileges is true")
    for item, given in (
        ("systempaths=unconfined", wanted.system_paths),
        ("writable-cgroups", wanted.writable_cgroups),
    ):
        if given and not gates.allow_privileged:
            yield _refusal(f"security_opt: {item}", "allow_privileged is false")


def _confinement(gates: Gates, wishes: Wishes) -> Iterator[_Refusal]:
    if not gates.allow_unconfined:
        free_of_profile = wishes.apparmor == ""
        for name, free in (("seccomp", wishes.seccomp is False), ("apparmor", free_of_profile)):
            if free:
                yield _refusal(f"security_opt: {name}=unconfined", "allow_unconfined is false")
    if wishes.apparmor and wishes.apparmor != gates.default_apparmor:
        yield from _listed(
            "apparmor_profile", [wishes.apparmor], "allow_apparmor", gates.allow_apparmor
        )


def _listed(
    option: str, values: Iterable[str], gate: str, allowed: tuple[str, ...] | None
) -> Iterator[_Refusal]:
    for value in values:
        if allowed is not None and not _matches(value, allowed):
            yield _refusal(f"{option}: {value[:128]!r}", _shown(gate, allowed))


def _registry(allowed: tuple[str, ...], image: str) -> Iterator[_Refusal]:
    name = reference.parse(image)
    places = (name.registry, f"{name.registry}/{name.repository}")
    if not any(_matches(place, allowed) for place in places):
        yield _refusal(f"image: {places[1][:128]!r}", _shown("allow_registries", allowed))


def _matches(value: str, allowed: Iterable[str]) -> bool:
    return any(fnmatchcase(value, pattern) for pattern in allowed)


def _shown(gate: str, allowed: tuple[str, ...]) -> str:
    return f"{gate} is {', '.join(allowed)[:256] or 'empty'}"
