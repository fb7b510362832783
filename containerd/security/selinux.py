"""SELinux contexts of a task: of the task's processes, and of the files that the task may write.

A context is `user:role:type:level`. The distribution's package for containers names the contexts.
The level has two categories for each allocation, so that allocations cannot read each other's files
and the tasks of an allocation share theirs. The categories are computed from the allocation's id: a
plugin needs no memory of them. Two allocations have the same pair in one of 521731 cases.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Mapping
from pathlib import Path

from proto.errors import Code, DriverError
from proto.values import dataclass

DISABLE = "disable"
"""Option of a task that runs with the context of containerd's own processes."""
PARTS = ("user", "role", "type", "level", "filetype")
"""Keys of the other options, as `type:container_t`."""
_CATEGORIES = 1022
# The last two categories, which no confined task has: for the files of a task without a context.
_UNREACHABLE = "s0:c1022,c1023"
_SHARED = "s0"
_UNKNOWN = (errno.EINVAL, errno.EFBIG)
_OWN_CONTEXTS = "usr/share/containers/selinux/contexts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """Contexts of a task; empty without SELinux.

    process: empty for a task that is not confined.
    files: of the task's root and of its own files.
    """

    process: str = ""
    files: str = ""

    @property
    def shared_files(self) -> str:
        """Context of files that every confined task may use."""
        return _with(self.files, level=_SHARED)

    @property
    def root_options(self) -> tuple[str, ...]:
        """Mount options of the task's root, which give all files of the image the context."""
        return (f'context="{self.files}"',) if self.files else ()


def is_enabled(root: Path = Path("/")) -> bool:
    """Returns True if the kernel has an SELinux policy, enforcing or permissive.

    Args:
        root: root of the machine's files; tests use another directory.
    """
    # Without a loaded policy every process has the context `kernel`.
    own = _text(root / "proc/self/attr/current").strip("\0\n")
    return (root / "sys/fs/selinux/enforce").exists() and own != "kernel"


def advice(failure: str, root: Path = Path("/")) -> str:
    """Returns advice for the failure of a runtime that the policy may have caused, else "".

    Args:
        failure: the runtime's text.
        root: root of the machine's files; tests use another directory.
    """
    in_force = _text(root / "sys/fs/selinux/enforce").strip() == "1"
    if not in_force or "permission denied" not in failure.lower():
        return ""
    return (
        "SELinux is in force and may have refused: see ausearch -m avc -ts recent. A policy that"
        " confines containerd must let containerd and the runtime use the driver's files"
    )


def of_containers(root: Path = Path("/")) -> Mapping[str, str]:
    """Reads the policy's contexts of containers by their keys, as `process` and `file`. Blocks.

    Args:
        root: root of the machine's files; tests use another directory.

    Raises:
        DriverError: code PRECONDITION; the policy has no contexts of containers.
    """
    kind = _assignments(_text(root / "etc/selinux/config")).get("SELINUXTYPE", "targeted")
    text = _text(root / _OWN_CONTEXTS) or _text(root / f"etc/selinux/{kind}/contexts/lxc_contexts")
    found = _assignments(text)
    if not found.get("process") or not found.get("file"):
        raise no_contexts(f"the SELinux policy {kind[:64]!r} has no contexts of containers")
    return found


def of_task(contexts: Mapping[str, str], alloc_id: str, options: tuple[str, ...]) -> Contexts:
    """Returns the contexts of a task. Pure.

    Args:
        contexts: of `of_containers`.
        alloc_id: Nomad's id of the allocation, for the categories.
        options: `disable`, or `key:value` with a key of PARTS; a later option wins.
    """
    if DISABLE in options:
        return Contexts(files=_with(contexts["file"], level=_UNREACHABLE))
    wanted = dict(option.split(":", 1) for option in options)
    level = wanted.get("level") or categories(alloc_id)
    process = {part: wanted[part] for part in ("user", "role", "type") if part in wanted}
    files = {"user": wanted["user"]} if "user" in wanted else {}
    if "filetype" in wanted:
        files["type"] = wanted["filetype"]
    return Contexts(
        process=_with(contexts["process"], **process, level=level),
        files=_with(contexts["file"], **files, level=level),
    )


def unknown(contexts: Contexts, root: Path = Path("/")) -> str:
    """Returns the first context that the kernel's policy does not know; empty if all are known.

    The kernel answers a write of an unknown context to the file `context` of selinuxfs with EINVAL,
    of a context longer than a page with EFBIG (security/selinux/selinuxfs.c). Without
    the file, all contexts count as known. Blocks.

    Args:
        contexts: of a task.
        root: root of the machine's files; tests use another directory.
    """
    for context in filter(None, (contexts.process, contexts.files)):
        try:
            with (root / "sys/fs/selinux/context").open("r+b", buffering=0) as policy:
                policy.write(f"{context}\0".encode())
        except OSError as error:
            if error.errno in _UNKNOWN:
                return context
    return ""


def no_contexts(reason: str) -> DriverError:
    """Returns the error of a policy that cannot confine tasks."""
    return DriverError(
        reason,
        resolution="install container-selinux, or set selinux_enabled = false in the driver's"
        " plugin block",
        code=Code.PRECONDITION,
    )


def categories(alloc_id: str) -> str:
    """Returns the level of an allocation: two different categories."""
    number = int.from_bytes(hashlib.sha256(alloc_id.encode()).digest(), "big")
    first, second = number % _CATEGORIES, number // _CATEGORIES % (_CATEGORIES - 1)
    second += second >= first
    return f"s0:c{min(first, second)},c{max(first, second)}"


def _with(context: str, **parts: str) -> str:
    """Returns a context with other parts; a policy without levels gets none."""
    words = context.split(":", 3)
    for index, name in enumerate(("user", "role", "type", "level")):
        if name in parts and index < len(words):
            words[index] = parts[name]
    return ":".join(words)


def _assignments(text: str) -> dict[str, str]:
    lines = (line.strip() for line in text.splitlines())
    pairs = (line.partition("=") for line in lines if "=" in line and line[0] not in "#;")
    return {key.strip(): value.strip().strip('"') for key, _, value in pairs}


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
