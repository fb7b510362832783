"""The OCI runtime spec of a task: a pure function of its inputs.

Starts from what containerd gives a plain Unix container and differs where that was a defect:
no tmpfs on /run unless the root is read-only (it hides what images put there), a cgroup namespace
of its own with a read-only /sys/fs/cgroup (so that a JVM sees its limits), swap off by default.
The limit of open files and the OOM score are always written (`daemon_process` has their defaults):
without them a task has the shim's, which are containerd's own, and made for a daemon.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from containerd.documents import Document
from containerd.security.policy import Security
from containerd.spec import devices, resources
from containerd.spec.mounts import covers, kernel_file_systems, oci_mounts, rootfs_propagation
from containerd.spec.resources import Limits
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from containerd.image.config import ImageConfig
    from containerd.spec.devices import DeviceNode
    from containerd.spec.mounts import MountPoint
    from containerd.spec.users import ResolvedUser


OCI_VERSION = "1.0.2"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INIT_PATH = "/.init"
_MAX_HOSTNAME = 63
# What the kernel hands to a program at most: one string with its NUL (MAX_ARG_STRLEN), and all of
# them with a pointer each (three quarters of _STK_LIM). Beyond, the runtime's execve fails when the
# start is over, and the task ends with status 1 and no reason.
_MAX_STRING_BYTES = 128 * 1024
_MAX_STRINGS_BYTES = 6 * 1024 * 1024
_POINTER_BYTES = 8
# The stack has four times that, where nobody says otherwise: the kernel's _STK_LIM.
_STACK_BYTES = 8 * 1024 * 1024
Rlimits = Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecInputs:
    """All that a spec depends on. cgroup_path counts from the root of cgroups.

    netns_path joins a network namespace; host_network keeps the host's; neither makes a new one.
    rlimits are (soft, hard) by lower-case name. shm_size_bytes 0 is 64 MiB. init is the path of a
    static program of the host that becomes process 1, or empty.
    """

    image_config: ImageConfig
    command: str = ""
    args: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cwd: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    user: ResolvedUser
    security: Security = field(default_factory=Security)
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
    netns_path: str = ""
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    host_uts: bool = False
    readonly_rootfs: bool = False
    cgroup_v2: bool = False


def build_spec(inputs: SpecInputs) -> Document:
    """The spec as a JSON document.

    Raises:
        DriverError: code INVALID; the message starts with the option that is wrong.
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
        linux["devices"] = devices.oci_nodes(nodes)
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
    if inputs.host_uts:
        # runc would set the host's own name.
        del document["hostname"]
    return document


def build_and_encode(inputs: SpecInputs) -> tuple[Document, bytes]:
    """The spec, and as containerd takes it. Job and image size it: call it in an executor.

    Raises:
        DriverError: see `build_spec`.
    """
    document = build_spec(inputs)
    return document, json.dumps(document, separators=(",", ":")).encode()


def encoded_for_exec(
    spec_json: bytes,
    command: list[str],
    *,
    terminal: bool,
    size: tuple[int, int] | None = None,
    cwd: str = "",
) -> tuple[Document, bytes]:
    """The process of an exec, and as containerd takes it; for an executor as well.

    cwd takes the place of the task's working directory.
    """
    document = process_for_exec(json.loads(spec_json), command, terminal=terminal, size=size)
    if cwd:
        document["cwd"] = cwd
    return document, json.dumps(document, separators=(",", ":")).encode()


def process_for_exec(
    spec: Document, command: list[str], *, terminal: bool, size: tuple[int, int] | None = None
) -> Document:
    """The OCI process of a command run beside the task's own: same user, env, cwd and limits.

    The task may be of an earlier release, or of the Go driver. size is (height, width) of the
    terminal, in characters; TERM is then the task's, or else xterm.
    """
    process: Document = dict(spec["process"])
    process["args"] = command
    process["terminal"] = terminal
    process.pop("consoleSize", None)
    process.setdefault("oomScoreAdj", 0)
    if uid := process.get("user", {}).get("uid", 0):
        granted = process.get("capabilities", {}).get("bounding", [])
        process["capabilities"] = _capability_sets(granted, uid)
    if terminal:
        env = process.get("env", [])
        if not any(entry.startswith("TERM=") for entry in env):
            process["env"] = [*env, "TERM=xterm"]
        if size is not None and min(size) > 0:
            process["consoleSize"] = {"height": size[0], "width": size[1]}
    return process


def arguments(inputs: SpecInputs) -> list[str]:
    """The command line: Docker's rules for entrypoint, command and args.

    `command` replaces the image's CMD and keeps its ENTRYPOINT; `entrypoint` replaces both;
    `args` follow, and alone replace CMD. An empty entrypoint counts as not given; one of nothing
    but empty words, as `[""]`, clears the image's. Any other empty word is a word.

    Raises:
        DriverError: code INVALID; both are set, or nothing says what to run.
    """
    image = inputs.image_config
    if inputs.command and inputs.entrypoint:
        raise _invalid("Both command and entrypoint are set. Only one of them needs to be set.")
    images_own = _unless_blank(image.entrypoint)
    if inputs.entrypoint:
        words = _unless_blank(inputs.entrypoint) + inputs.args
    elif inputs.command:
        words = (*images_own, inputs.command, *inputs.args)
    elif inputs.args:
        words = images_own + inputs.args
    else:
        words = images_own + image.cmd
    if words and not words[0]:
        raise _invalid("the first word of the command is empty: it has to name a program")
    if not words:
        raise DriverError(
            "the image names no command, and neither does the job",
            resolution="set command, args or entrypoint",
            code=Code.INVALID,
        )
    return list(words)


def _unless_blank(entrypoint: tuple[str, ...]) -> tuple[str, ...]:
    return entrypoint if any(entrypoint) else ()


def environment(inputs: SpecInputs) -> list[str]:
    """Image's environment, then the job's over it; PATH, HOME and HOSTNAME in any case.

    Raises:
        DriverError: code INVALID for a name or value that execve cannot carry.
    """
    merged: dict[str, str] = {"PATH": DEFAULT_PATH}
    for entry in inputs.image_config.env:
        name, _, value = entry.partition("=")
        if name:  # the runtime refuses a variable without one, and an image may have it
            merged[name] = value
    merged.setdefault("HOME", inputs.user.home or "/")
    if not inputs.host_uts:
        # Images say with it where their server listens.
        merged.setdefault("HOSTNAME", _hostname(inputs.hostname))
    for name, value in inputs.env.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise _invalid(f"env: {name[:64]!r} is no name or has a NUL byte in its value")
        merged[name] = value
    return [f"{name}={value}" for name, value in merged.items()]


def _process(inputs: SpecInputs) -> Document:
    user: Document = {"uid": inputs.user.uid, "gid": inputs.user.gid}
    if inputs.user.additional_gids:
        user["additionalGids"] = list(inputs.user.additional_gids)
    security = inputs.security
    words, variables = arguments(inputs), environment(inputs)
    _check_sizes(words, variables, inputs.rlimits)
    process: Document = {
        "args": [INIT_PATH, "--", *words] if inputs.init else words,
        "cwd": _cwd(inputs),
        "env": variables,
        "user": user,
        "noNewPrivileges": security.no_new_privileges,
        "capabilities": _capability_sets(security.capabilities, inputs.user.uid),
        # A runtime hands on what it has from containerd, whose unit spares it from the kernel's OOM
        # killer: the agent would die before the task that ate the memory.
        "oomScoreAdj": inputs.oom_score_adj,
    }
    if inputs.rlimits:
        process["rlimits"] = [
            {"type": f"RLIMIT_{name.upper()}", "soft": soft, "hard": hard}
            for name, (soft, hard) in sorted(inputs.rlimits.items())
        ]
    if security.apparmor_profile:
        process["apparmorProfile"] = security.apparmor_profile
    return process


def _capability_sets(granted: Sequence[str], uid: int) -> Document:
    """The sets of a process: of a user other than root only the bounding one, as with Docker.

    So execve leaves them to every user but root. A runtime that takes the sets as they are written,
    as gVisor does, would give them to any user.
    """
    kinds = ("bounding",) if uid else ("bounding", "effective", "permitted")
    return {kind: list(granted) for kind in kinds}


def _check_sizes(words: list[str], variables: list[str], limits: Rlimits) -> None:
    sizes = [len(text.encode(errors="surrogatepass")) + 1 for text in (*words, *variables)]
    for text, size in zip((*words, *variables), sizes, strict=True):
        if size > _MAX_STRING_BYTES:
            name, equals, _ = text.partition("=")
            what = f"env: {name[:64]!r}" if equals and text in variables else "args: one of them"
            raise _invalid(f"{what} has {size - 1} bytes; no program takes more than 128 KiB")
    together = sum(sizes) + _POINTER_BYTES * len(sizes)
    if together > _MAX_STRINGS_BYTES:
        raise _invalid("env and args are more than 6 MiB together, which no program takes")
    stack = limits.get("stack", (_STACK_BYTES, 0))[0]
    if together > max(stack // 4, _MAX_STRING_BYTES):
        raise DriverError(
            f"Error in creating container: env and args are {together} bytes together, and have to"
            f" fit into a quarter of the stack, which has {stack}",
            resolution='raise the limit, as ulimit { stack = "33554432" }, or put them in a file',
            code=Code.INVALID,
        )


def _cwd(inputs: SpecInputs) -> str:
    cwd = inputs.cwd or inputs.image_config.working_dir or "/"
    # normpath keeps two slashes at the start, and to the kernel they are one.
    clean = posixpath.normpath("/" + cwd.lstrip("/"))
    # runc follows a working directory into its own leaked descriptors there: CVE-2024-21626.
    if not cwd.startswith("/") or "\0" in cwd or clean.split("/")[1] in {"proc", "sys"}:
        raise _invalid(
            f"cwd: {cwd[:128]!r} is not an absolute path of the container outside /proc and /sys"
        )
    return clean


def _hostname(name: str) -> str:
    if not 0 < len(name) <= _MAX_HOSTNAME or any(c.isspace() or not c.isprintable() for c in name):
        raise _invalid(f"hostname: {name[:80]!r} has not 1 to {_MAX_HOSTNAME} printable characters")
    return name


def _namespaces(inputs: SpecInputs) -> list[Document]:
    shared = {"pid": inputs.host_pid, "ipc": inputs.host_ipc, "uts": inputs.host_uts}
    kinds: list[Document] = [
        {"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup") if not shared.get(kind)
    ]
    if inputs.netns_path:
        kinds.append({"type": "network", "path": inputs.netns_path})
    elif not inputs.host_network:
        kinds.append({"type": "network"})
    return kinds


def _resources(inputs: SpecInputs) -> Document:
    allowed = devices.cgroup_rules(inputs.devices, everything=inputs.security.privileged)
    return {"devices": allowed, **resources.document(inputs.limits)}


def _mounts(inputs: SpecInputs) -> list[Document]:
    """The kernel's file systems, then the task's mounts, parents before children.

    A mount of the task takes the place of the kernel's there and below: with the host's /dev, its
    terminals and shared memory are the host's too.
    """
    own = kernel_file_systems(
        shm_size_bytes=inputs.shm_size_bytes,
        privileged=inputs.security.privileged,
        host_ipc=inputs.host_ipc,
    )
    kept = [point for point in own if not covers(inputs.mounts, point["destination"])]
    return kept + oci_mounts(inputs.mounts)


def _invalid(text: str) -> DriverError:
    return DriverError(f"Error in creating container: {text}", code=Code.INVALID)
