"""Builds the OCI runtime spec of a task: a pure function of `SpecInputs`.

The spec starts from containerd's default for a Unix container and differs in three points:
- /run is a tmpfs only if the root is read-only: a tmpfs hides the image's files in /run.
- Each task has a private cgroup namespace with a read-only /sys/fs/cgroup, so a JVM sees the
  task's limits. A job can ask for the host's namespace.
- Swap is off by default.

The spec always has a limit of open files and an OOM score (defaults in `daemon_process`). Without
them a task inherits the shim's values from containerd, and those values suit a daemon.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING

from containerd.documents import Document
from containerd.security.policy import Security
from containerd.security.selinux import Contexts
from containerd.spec.devices import cgroup_rules, oci_nodes
from containerd.spec.mounts import covers, kernel_file_systems, oci_mounts, rootfs_propagation
from containerd.spec.resources import Limits, oci_resources
from containerd.spec.rootless import Rootless, adapt
from proto.errors import Code, DriverError, start_refused
from proto.values import dataclass

if TYPE_CHECKING:
    from containerd.image.config import ImageConfig
    from containerd.spec.devices import DeviceNode
    from containerd.spec.mounts import MountPoint
    from containerd.spec.users import ResolvedUser

OCI_VERSION = "1.0.2"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INIT_PATH = "/.init"
SHIM_GROUP = "io.containerd.runc.v2.group"
"""Annotation by which runc's shim finds the shim that a container joins."""
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the host's
_MAX_HOSTNAME = 63
# The kernel's limits for execve: a single string with its NUL (MAX_ARG_STRLEN), and all strings
# with a pointer each (three quarters of _STK_LIM). Beyond the limits the runtime's execve fails
# after the start has been reported, and the task ends with status 1 and no reason.
_MAX_PATH_BYTES = 4095  # PATH_MAX without the NUL
_MAX_STRING_BYTES = 128 * 1024
_MAX_VARIABLES = 16_384
_MAX_STRINGS_BYTES = 6 * 1024 * 1024
_POINTER_BYTES = 8
# Default size of the stack, the kernel's _STK_LIM: four times what all strings may take.
_STACK_BYTES = 8 * 1024 * 1024
Rlimits = Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecInputs:
    """All inputs of a spec. cgroup_path counts from the root of cgroups.

    namespaces has paths of namespaces by kind, and of another task's /dev/shm as `shm`.
    netns_path joins a network namespace, host_network keeps the host's; without both the task gets
    a new namespace. rlimits are (soft, hard) by lower-case name. shm_size_bytes 0 means 64 MiB.
    init is the path of a static program of the host which becomes process 1, or empty.
    """

    image_config: ImageConfig
    command: str = ""
    args: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cwd: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    user: ResolvedUser
    umask: int | None = None
    security: Security = field(default_factory=Security)
    contexts: Contexts = field(default_factory=Contexts)
    hostname: str
    cgroup_path: str
    limits: Limits = field(default_factory=Limits)
    rlimits: Rlimits = field(default_factory=dict)
    oom_score_adj: int = 0
    sysctl: Mapping[str, str] = field(default_factory=dict)
    shm_size_bytes: int = 0
    init: str = ""
    mounts: tuple[MountPoint, ...] = ()
    devices: tuple[DeviceNode, ...] = ()
    hooks: Mapping[str, tuple[Document, ...]] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    netns_path: str = ""
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    host_uts: bool = False
    namespaces: Mapping[str, str] = field(default_factory=dict)
    host_cgroup: bool = False
    readonly_rootfs: bool = False
    terminal: bool = False
    cgroup_v2: bool = False
    rootless: Rootless | None = None


def build_spec(inputs: SpecInputs) -> Document:
    """Builds the spec as a JSON document.

    Raises:
        DriverError: code INVALID; the message starts with the name of the wrong option.
    """
    linux: Document = {
        "cgroupsPath": inputs.cgroup_path,
        "namespaces": _namespaces(inputs),
        "resources": _resources(inputs),
        "maskedPaths": list(inputs.security.masked_paths),
        "readonlyPaths": list(inputs.security.readonly_paths),
    }
    if inputs.sysctl:
        linux["sysctl"] = dict(inputs.sysctl)
    if inputs.security.seccomp is not None:
        linux["seccomp"] = inputs.security.seccomp
    nodes = [node for node in inputs.devices if not covers(inputs.mounts, node.path)]
    if nodes:
        linux["devices"] = oci_nodes(nodes)
    if inputs.contexts.files:
        linux["mountLabel"] = inputs.contexts.files
    propagation = rootfs_propagation(inputs.mounts)
    if propagation:
        linux["rootfsPropagation"] = propagation
    document: Document = {
        "ociVersion": OCI_VERSION,
        "root": {"path": "rootfs", "readonly": inputs.readonly_rootfs},
        "hostname": _hostname(inputs.hostname),
        "process": _process(inputs),
        "mounts": _mounts(inputs),
        "linux": linux,
    }
    if inputs.hooks:
        document["hooks"] = {when: list(hooks) for when, hooks in inputs.hooks.items()}
    if inputs.annotations:
        document["annotations"] = dict(inputs.annotations)
    if inputs.host_uts:
        # With a hostname in the spec, runc would change the host's name.
        del document["hostname"]
    if inputs.rootless is not None:
        adapt(document, inputs.rootless)
    return document


def build_and_encode(inputs: SpecInputs) -> tuple[Document, bytes]:
    """Builds the spec and its JSON for containerd.

    The job and the image decide the size of the spec, so call `build_and_encode` in an executor.

    Raises:
        DriverError: see `build_spec`.
    """
    document = build_spec(inputs)
    return document, json.dumps(document, separators=(",", ":")).encode()


def with_shim_group(spec_json: bytes, group: str) -> bytes:
    """Returns the JSON of a spec with the group of the container's shim."""
    if b'"annotations":' in spec_json:
        document = json.loads(spec_json)
        document["annotations"] = {**document.get("annotations", {}), SHIM_GROUP: group}
        return json.dumps(document, separators=(",", ":")).encode()
    notes = json.dumps({"annotations": {SHIM_GROUP: group}}, separators=(",", ":")).encode()
    return spec_json.removesuffix(b"}") + b"," + notes.removeprefix(b"{")


def shim_group(spec_json: bytes) -> str:
    """Returns the group of a container's shim; empty for a container with a shim of its own."""
    if SHIM_GROUP.encode() not in spec_json:
        return ""
    notes = json.loads(spec_json).get("annotations") or {}
    return str(notes.get(SHIM_GROUP, ""))


def arguments(inputs: SpecInputs) -> list[str]:
    """Builds the command line by Docker's rules for entrypoint, command and args.

    `entrypoint` replaces the image's ENTRYPOINT and CMD; `command` replaces CMD. `args` follow;
    `args` alone replace CMD. An empty entrypoint counts as absent. An entrypoint of empty
    words only, such as `[""]`, clears the image's. Any other empty word stays.

    Raises:
        DriverError: code INVALID; no program is named.
    """
    image = inputs.image_config
    image_entrypoint = _unless_blank(image.entrypoint)
    if inputs.entrypoint:
        named = (inputs.command,) if inputs.command else ()
        words = _unless_blank(inputs.entrypoint) + named + inputs.args
    elif inputs.command:
        words = (*image_entrypoint, inputs.command, *inputs.args)
    elif inputs.args:
        words = image_entrypoint + inputs.args
    else:
        words = image_entrypoint + image.cmd
    if words and not words[0]:
        raise start_refused("the first word of the command is empty: the word must name a program")
    if not words:
        raise DriverError(
            "no command to run: neither the image nor the job has a command",
            resolution="set command, args or entrypoint",
            code=Code.INVALID,
        )
    return list(words)


def _unless_blank(entrypoint: tuple[str, ...]) -> tuple[str, ...]:
    return entrypoint if any(entrypoint) else ()


def environment(inputs: SpecInputs) -> list[str]:
    """Merges the image's environment and the job's; the job's values win.

    PATH, HOME and HOSTNAME are always set, except HOSTNAME in the host's UTS namespace.

    Raises:
        DriverError: code INVALID; execve cannot carry a name or a value.
    """
    merged: dict[str, str] = {"PATH": DEFAULT_PATH}
    for entry in inputs.image_config.env:
        name, _, value = entry.partition("=")
        if name:  # an image may have a variable without a name, and the runtime refuses such
            merged[name] = value
    merged.setdefault("HOME", inputs.user.home or "/")
    if inputs.terminal:
        merged.setdefault("TERM", "xterm")
    if not inputs.host_uts:
        # Some images use HOSTNAME as the address that their server listens on.
        merged.setdefault("HOSTNAME", _hostname(inputs.hostname))
    for name, value in inputs.env.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise start_refused(
                f"env: {name[:64]!r} is not a variable name, or the value has a NUL byte"
            )
        merged[name] = value
    return [f"{name}={value}" for name, value in merged.items()]


def _process(inputs: SpecInputs) -> Document:
    user: Document = {"uid": inputs.user.uid, "gid": inputs.user.gid}
    if inputs.user.additional_gids:
        user["additionalGids"] = list(inputs.user.additional_gids)
    if inputs.umask is not None:
        user["umask"] = inputs.umask
    security = inputs.security
    words, variables = arguments(inputs), environment(inputs)
    _check_sizes(words, variables, inputs.rlimits)
    process: Document = {
        "args": [INIT_PATH, "--", *words] if inputs.init else words,
        "cwd": _cwd(inputs),
        "env": variables,
        "user": user,
        "noNewPrivileges": security.no_new_privileges,
        "capabilities": capability_sets(security.capabilities, inputs.user.uid),
        # A runtime inherits containerd's score and hands the score on, and containerd's unit
        # protects containerd from the OOM killer: the kernel would kill the agent before the task
        # which used up the memory.
        "oomScoreAdj": inputs.oom_score_adj,
    }
    if inputs.terminal:
        process["terminal"] = True
    if inputs.rlimits:
        process["rlimits"] = [
            {"type": f"RLIMIT_{name.upper()}", "soft": soft, "hard": hard}
            for name, (soft, hard) in sorted(inputs.rlimits.items())
        ]
    if inputs.contexts.process:
        process["selinuxLabel"] = inputs.contexts.process
    if security.apparmor_profile:
        process["apparmorProfile"] = security.apparmor_profile
    return process


def capability_sets(granted: Sequence[str], uid: int) -> Document:
    """Returns the capability sets of a process; only the bounding set for users other than root.

    Docker does the same. execve clears the other sets of such users, but a runtime which applies
    the sets as written, such as gVisor, would give capabilities to any user.
    """
    kinds = ("bounding",) if uid else ("bounding", "effective", "permitted")
    return {kind: list(granted) for kind in kinds}


def too_long(program: str) -> str:
    """Returns why a program's name or path is refused; empty for a name that the kernel takes.

    A runtime repeats the name in its error, and shims read the error after the end of the runtime:
    with 64 KiB the pipe is full, and the runtime waits for ever, and each stop of the task.
    """
    size = len(program.encode(errors="surrogatepass"))
    limit = f"the kernel's limit is {_MAX_PATH_BYTES}"
    return f"the program's name has {size} bytes; {limit}" if size > _MAX_PATH_BYTES else ""


def too_many(variables: Sequence[str]) -> str:
    """Returns why an environment is refused; empty for an environment of a usual size.

    runc's time grows with the square of the number: 200,000 variables take a minute, in which no
    stop of the task is possible.
    """
    number = len(variables)
    return (
        f"env has {number} variables, at most {_MAX_VARIABLES}" if number > _MAX_VARIABLES else ""
    )


def _check_sizes(words: list[str], variables: list[str], limits: Rlimits) -> None:
    sizes = [len(text.encode(errors="surrogatepass")) + 1 for text in (*words, *variables)]
    for text, size in zip((*words, *variables), sizes, strict=True):
        if size > _MAX_STRING_BYTES:
            name, equals, _ = text.partition("=")
            what = f"env: {name[:64]!r}" if equals and text in variables else "args: an argument"
            raise start_refused(f"{what} has {size - 1} bytes; the kernel's limit is 128 KiB")
    together = sum(sizes) + _POINTER_BYTES * len(sizes)
    if together > _MAX_STRINGS_BYTES:
        raise start_refused("env and args have more than 6 MiB together, the kernel's limit")
    stack = limits.get("stack", (_STACK_BYTES, 0))[0]
    if together > max(stack // 4, _MAX_STRING_BYTES):
        raise start_refused(
            f"env and args have {together} bytes together, and must fit into a quarter of the"
            f" stack of {stack} bytes",
            'raise the limit, as ulimit { stack = "33554432" }, or write the values to a file',
        )
    if reason := too_long(words[0]) or too_many(variables):
        raise start_refused(reason)


def _cwd(inputs: SpecInputs) -> str:
    cwd = inputs.cwd or inputs.image_config.working_dir or "/"
    clean = working_directory(cwd)
    if not clean:
        raise start_refused(
            f"cwd: {cwd[:128]!r} is not an absolute path of the container outside /proc and /sys,"
            f" of at most {_MAX_PATH_BYTES} bytes"
        )
    return clean


def working_directory(path: str) -> str:
    """Returns the path in its short form; empty for a path that no process may work in.

    A working directory in /proc could lead runc into its own leaked descriptors: CVE-2024-21626.
    """
    # normpath keeps two slashes at the start; the kernel reads them as a single slash.
    clean = posixpath.normpath("/" + path.lstrip("/"))
    allowed = path.startswith("/") and "\0" not in path and not too_long(clean)
    return clean if allowed and clean.split("/")[1] not in {"proc", "sys"} else ""


def _hostname(name: str) -> str:
    if not 0 < len(name) <= _MAX_HOSTNAME or any(c.isspace() or not c.isprintable() for c in name):
        raise start_refused(
            f"hostname: {name[:80]!r} does not have 1 to {_MAX_HOSTNAME} printable characters"
        )
    return name


def _namespaces(inputs: SpecInputs) -> list[Document]:
    shared = {
        "pid": inputs.host_pid,
        "ipc": inputs.host_ipc,
        "uts": inputs.host_uts,
        "cgroup": inputs.host_cgroup,
    }
    paths = inputs.namespaces
    kinds: list[Document] = [
        {"type": kind, "path": paths[kind]} if kind in paths else {"type": kind}
        for kind in ("pid", "ipc", "uts", "mount", "cgroup")
        if not shared.get(kind)
    ]
    if inputs.netns_path:
        kinds.append({"type": "network", "path": inputs.netns_path})
    elif not inputs.host_network:
        kinds.append({"type": "network"})
    return kinds


def _resources(inputs: SpecInputs) -> Document:
    allowed = cgroup_rules(inputs.devices, everything=inputs.security.privileged)
    return {"devices": allowed, **oci_resources(inputs.limits)}


def _mounts(inputs: SpecInputs) -> list[Document]:
    """Lists the kernel's file systems, then the task's mounts, parents before children.

    A mount of the task replaces the kernel's file systems at and below its target. For example,
    a task with the host's /dev also has the host's terminals and shared memory.
    """
    of_kernel = kernel_file_systems(
        shm_size_bytes=inputs.shm_size_bytes,
        privileged=inputs.security.privileged,
        writable_cgroups=inputs.security.writable_cgroups,
        shm_source=_SHARED_MEMORY if inputs.host_ipc else inputs.namespaces.get("shm", ""),
    )
    kept = [point for point in of_kernel if not covers(inputs.mounts, point["destination"])]
    return kept + oci_mounts(inputs.mounts)
