"""Gates of the plugin block: `allow_*`, `volumes`, `allowed_modes`, `hardened` and `namespace`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from actors.model.gates import (
    EXEC_OPTIONS,
    HARDENED,
    OPEN,
    UNCONFINED,
    Gates,
    unknown_capabilities,
)
from plugin.options import readers
from plugin.options.table import Option, block_fields, read_fields

_MAX_PIDS = 4 * 1024 * 1024  # the kernel's PID_MAX_LIMIT


def _caps(value: Any, path: str, problems: list[str]) -> tuple[str, ...]:
    """Reads capabilities by their names in any case, or `all`."""
    names = readers.texts(value, path, problems)
    unknown = unknown_capabilities(names)
    problems += [f"{path}: {readers.shown(name)} is no capability" for name in unknown]
    return names


def _exec_options(value: Any, path: str, problems: list[str]) -> tuple[str, ...]:
    words = readers.texts(value, path, problems)
    known = ", ".join(EXEC_OPTIONS)
    unknown = [word for word in words if word not in EXEC_OPTIONS]
    problems += [f"{path}: {readers.shown(word)} is not one of {known}" for word in unknown]
    if "root" in words and "user" not in words:
        problems.append(f"{path}: root has an effect only beside user")
    return words


def _profile(value: Any, path: str, problems: list[str]) -> str:
    """Reads the name of an AppArmor profile; `unconfined` is no profile."""
    name: str = readers.text(256)(value, path, problems)
    return "" if name == UNCONFINED else name


def _allow(name: str, meaning: str) -> Option:
    return Option(
        name=name,
        hcl_type="list(string)",
        read=readers.texts,
        doc=f"{meaning}, with `*`; not set: all; `[]`: none.",
    )


_VOLUMES = (
    Option(
        name="enabled",
        field="volumes",
        hcl_type="bool",
        implied="true",
        read=readers.boolean,
        doc="`false`: a job mounts only files of its allocation. Nomad's own `volume` blocks count"
        " as the operator's.",
    ),
    Option(
        name="allowed_paths",
        field="volume_paths",
        hcl_type="list(string)",
        implied="[]",
        read=readers.absolute_paths,
        doc="Paths of the node that jobs may mount, with all below, with `*`; empty: all. Links"
        " are followed before the comparison.",
    ),
    Option(
        name="selinuxlabel",
        field="volume_label",
        hcl_type="string",
        implied='""',
        read=readers.choice("z", "Z"),
        doc="With `selinux_enabled`: `z` gives the files of mounts to all tasks of the node, `Z` to"
        " the tasks of the allocation. A mount's own `z`, `Z` or `selinux_label` wins. Files of the"
        " allocation have `Z` without the option.",
    ),
)

_MODES = tuple(
    Option(
        name=kind,
        field=f"{kind}_modes",
        hcl_type="list(string)",
        implied="[]",
        read=readers.texts,
        doc=f"Values of `{kind}_mode` that jobs may set, such as `host` or `task:*`."
        if kind != "uts"
        else "Values of `uts_mode` that jobs may set: `host`.",
    )
    for kind in ("pid", "ipc", "uts")
)

_CGROUPNS = Option(
    name="cgroupns",
    field="cgroup_modes",
    hcl_type="list(string)",
    implied="[]",
    read=readers.texts,
    doc="Values of `cgroupns` that jobs may set, such as `host`.",
)
_NETWORK = Option(
    name="network",
    field="network_modes",
    hcl_type="list(string)",
    implied="[]",
    read=readers.texts,
    doc="Values of `network_mode` with the network of another allocation that jobs may set, such as"
    " `ns:/var/run/netns/vpn`; `allow_host_network` must be `true`, too.",
)
_USERNS = Option(
    name="userns",
    hcl_type="list(string)",
    read=lambda *given: readers.Fields(_ignored=readers.texts(*given)) and readers.Fields(),
    doc="For blocks of Docker's driver; jobs of this driver cannot set a user namespace.",
)

GATES: tuple[Option, ...] = (
    Option(
        name="allow_privileged",
        hcl_type="bool",
        implied="true",
        read=readers.boolean,
        doc="`false` refuses privileged jobs, and the host's namespaces that `allowed_modes` does"
        " not name.",
    ),
    Option(
        name="allow_runtimes",
        hcl_type="list(string)",
        implied="[]",
        read=readers.texts,
        doc="Runtimes that a task's `runtime` may name; empty: every runtime named on this"
        " page but `nvidia`.",
    ),
    Option(
        name="allow_caps",
        hcl_type="list(string)",
        read=_caps,
        doc="Capabilities that tasks may have, or `all`: a job's `cap_add` must be in the list, and"
        " the default capabilities outside of the list are removed; not set: all.",
    ),
    Option(
        name="allowed_modes",
        hcl_type="block",
        nested=(*_MODES, _CGROUPNS, _NETWORK, _USERNS),
        read=block_fields((*_MODES, _CGROUPNS, _NETWORK, _USERNS)),
        doc="Host namespaces of jobs, where `allow_privileged` is `false`.",
    ),
    Option(
        name="volumes",
        hcl_type="block",
        nested=_VOLUMES,
        read=block_fields(_VOLUMES),
        doc="Mounts of the node's files by a job's `mounts`, `mount` and `volumes`.",
    ),
    _allow("allow_devices", "Devices of a job's `devices`, as `/dev/fuse` or a CDI name"),
    Option(
        name="allow_host_network",
        hcl_type="bool",
        implied="true",
        read=readers.boolean,
        doc='`false` refuses `host_network = true` and `network_mode = "host"`.',
    ),
    Option(
        name="allow_memory_hard_limit",
        hcl_type="bool",
        implied="true",
        read=readers.boolean,
        doc="`false` refuses `memory_hard_limit`, by which a job takes more memory than Nomad has"
        " planned.",
    ),
    _allow(
        "allow_registries",
        "Registries, or registries with repositories, as `docker.io` or `ghcr.io/team/*`",
    ),
    _allow("allow_snapshotters", "Snapshotters that a job's `snapshotter` may name"),
    _allow("allow_sysctls", "Kernel parameters that a job's `sysctl` may set"),
    Option(
        name="pids_limit",
        hcl_type="number",
        implied="0",
        read=readers.integer(0, _MAX_PIDS),
        doc="Most processes of a task without `pids_limit`, and the highest `pids_limit` of a job;"
        " 0 is no limit.",
    ),
    Option(
        name="no_new_privileges",
        hcl_type="bool",
        implied="false",
        read=readers.boolean,
        doc="`true` takes the effect of set-user-ID bits and file capabilities away from tasks:"
        " `sudo` and `su` fail.",
    ),
    Option(
        name="allow_annotations",
        hcl_type="list(string)",
        implied="[]",
        read=readers.texts,
        doc="Annotations of a job's `annotations`, with `*`, such as `com.example.*`. Runtimes obey"
        " some: `org.systemd.property.*` (runc), `dev.gvisor.*`, `io.katacontainers.*`.",
    ),
    Option(
        name="exec_options",
        hcl_type="list(string)",
        implied="[]",
        read=_exec_options,
        doc="Options that a caller of `nomad alloc exec` may set for the command: `user`, `cwd`,"
        " `env`, and `root` for root in a task that runs as another user, see"
        " [operations.md](operations.md#commands-as-another-user).",
    ),
    Option(
        name="allow_known_holes",
        hcl_type="bool",
        implied="true",
        read=readers.boolean,
        doc="`false` starts no task while containerd or the task's runtime has a known hole by"
        " which tasks become root, see [security.md](security.md#known-holes-of-runtimes).",
    ),
    Option(
        name="default_seccomp",
        hcl_type="bool",
        implied="false",
        read=readers.boolean,
        doc="`true` filters system calls of tasks that are not privileged by the default profile.",
    ),
    Option(
        name="default_apparmor",
        hcl_type="string",
        implied='""',
        read=_profile,
        doc="AppArmor profile of tasks that are not privileged; `containerd-driver-default`, with"
        " the rules of Docker's default, is loaded by the driver, others by the operator. No effect"
        " on a kernel without AppArmor.",
    ),
    Option(
        name="allow_unconfined",
        hcl_type="bool",
        implied="true",
        read=readers.boolean,
        doc="`false` refuses `seccomp=unconfined` and `apparmor=unconfined` in `security_opt`.",
    ),
    _allow("allow_apparmor", "AppArmor profiles that a job may name beside `default_apparmor`"),
)


def _namespaces(value: Any, path: str, problems: list[str]) -> Mapping[str, Mapping[str, Any]]:
    """Reads the blocks by their label, Nomad's namespace."""
    if not isinstance(value, Mapping):
        problems.append(f'{path}: is a block, write {path} "NAME" {{ … }}')
        return {}
    made: dict[str, Mapping[str, Any]] = {}
    for name, block in value.items():
        if isinstance(block, Mapping):
            made[str(name)] = read_fields(GATES, block, f"{path}.{name}.", problems)
        elif block is not None:
            problems.append(f"{path}.{name}: is a block")
    return made


OPTIONS: tuple[Option, ...] = (
    Option(
        name="hardened",
        hcl_type="bool",
        implied="false",
        read=readers.boolean,
        doc="`true` closes the gates for jobs of untrusted authors, see docs/security.md; a gate"
        " that is set beside it wins.",
    ),
    *GATES,
    Option(
        name="namespace",
        hcl_type="block map",
        nested=GATES,
        labelled=True,
        read=_namespaces,
        doc="Gates for the jobs of one Nomad namespace, the label: these win over the gates above.",
    ),
)


def gates(fields: dict[str, Any]) -> tuple[Gates, dict[str, Gates]]:
    """Takes the gates out of the fields of the plugin block.

    Args:
        fields: the values by name, from `decode`; the gates are removed.

    Returns:
        The gates of the node, and the gates by Nomad's namespace.
    """
    names = [field.name for field in dataclasses.fields(Gates)]
    base = HARDENED if fields.pop("hardened", False) else OPEN
    node = _over(base, {name: fields.pop(name) for name in names if name in fields})
    spaces = fields.pop("namespace", {})
    return node, {name: _over(node, values) for name, values in spaces.items()}


def _over(base: Gates, own: Mapping[str, Any]) -> Gates:
    """Returns the gates with other values. Allowed paths open mounts that `base` forbids."""
    opened = {"volumes": True} if own.get("volume_paths") else {}
    return dataclasses.replace(base, **{**opened, **own})
