"""A task's isolation: modes of its namespaces, and `security_opt`, in the words of other drivers.

The words are those of Docker, Podman and nerdctl.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

from actors.model.settings import SELINUX_DISABLE, SELINUX_PARTS, SecurityOptions
from plugin.options import readers

_LABEL = re.compile(r"[A-Za-z0-9_.:,-]+")
_SWITCH = {"": True, "true": True, "1": True, "false": False, "0": False}
_SWITCHES = ("no-new-privileges", "writable-cgroups")
_NETWORKS = (
    'write network_mode = "host", "none", "bridge", "task:NAME", "container:ID" or "ns:/PATH"; for'
    ' another network write network { mode = "cni/NAME" } into the group'
)
_KNOWN = (*_SWITCHES, "seccomp", "apparmor", "systempaths")


def security_opt(value: Any, path: str, problems: list[str]) -> SecurityOptions:
    """Reads the list. The same name may stand twice only with the same value."""
    before = len(problems)
    written: dict[str, str] = {}
    labels: list[str] = []
    for index, item in enumerate(readers.texts(value, path, problems)):
        name, _, content = item.partition("=" if "=" in item else ":")
        if name == "label":
            labels.append(content)
            continue
        problem = _problem(name, content)
        if not problem and written.setdefault(name, content) != content:
            problem = f"contradicts {name}={readers.shown(written[name])}"
        if problem:
            problems.append(f"{path}[{index}]: {readers.shown(item)} {problem}")
    checked = selinux_opts(labels, f"{path}: label", problems)
    if len(problems) > before:
        return SecurityOptions()
    privileges = written.get("no-new-privileges")
    return SecurityOptions(
        no_new_privileges=None if privileges is None else _SWITCH[privileges],
        seccomp=written.get("seccomp", ""),
        apparmor=written.get("apparmor", ""),
        labels=checked,
        system_paths="systempaths" in written,
        writable_cgroups=_SWITCH[written.get("writable-cgroups", "false")],
    )


def selinux_opts(value: Any, path: str, problems: list[str]) -> tuple[str, ...]:
    """Reads options of a SELinux context, as `disable` or `type:container_t`."""
    words = readers.texts(value, path, problems)
    for word in words:
        key, _, content = word.partition(":")
        if word != SELINUX_DISABLE and not (key in SELINUX_PARTS and _LABEL.fullmatch(content)):
            problems.append(
                f"{path}: {readers.shown(word)} is neither {SELINUX_DISABLE} nor KEY:VALUE with"
                f" one of {', '.join(SELINUX_PARTS)}"
            )
    return words


def _problem(name: str, content: str) -> str:
    """Returns the reason why an item cannot be taken; empty for a good item."""
    if name not in _KNOWN:
        return f"is no security option: use label=disable, {', '.join(_KNOWN)}"
    if name in _SWITCHES:
        return "" if content in _SWITCH else "is neither true nor false"
    if name == "systempaths":
        return "" if content == "unconfined" else "can only be unconfined"
    if not content:
        return f"has no value: write {name}=unconfined, or a profile"
    if content.startswith("{"):
        return "has the text of a profile: write its path below the driver's seccomp_profile_dir"
    return ""


def process_mode(option: str, *own: str) -> readers.Reader:
    """Returns a reader of `host`, `task:NAME`, and words for a namespace of the task's own.

    The last words read as an empty text. Words count in any case, names of tasks do not.

    Args:
        option: pid_mode or ipc_mode.
        own: the words beside an empty text.
    """
    kind = option.removesuffix("_mode")
    # The first sentence for pid_mode is the Go driver's.
    purpose = "enable host pid namespace" if kind == "pid" else "share the host's"
    sentence = (
        f"Invalid {option}. Set {option}=host to {purpose}."
        f' Write {option} = "task:NAME" to share the namespace of another task of the group.'
    )

    def read(value: Any, path: str, problems: list[str]) -> str:
        string: str = readers.text()(value, path, problems)
        word = string.lower()
        if word in {"", *own}:
            return ""
        if word == "host":
            return word
        if not _names(string, "task:"):
            problems.append(f"{path}: {sentence}")
        return string

    return read


def network_mode(value: Any, path: str, problems: list[str]) -> str:
    """Reads the mode of a task's network; `default` reads as an empty text."""
    string: str = readers.text()(value, path, problems)
    word = string.lower()
    if word in {"", "default"}:
        return ""
    if word in {"host", "none", "bridge"}:
        return word
    named = _names(string, "task:") or _names(string, "container:")
    if not (named or (string.startswith("ns:") and _is_clean_path(string.removeprefix("ns:")))):
        problems.append(f"{path}: {readers.shown(string)} is not supported: {_NETWORKS}")
    return string


def user_mode(value: Any, path: str, problems: list[str]) -> tuple[str, ...]:
    """Reads the mode of a task's user namespace, which is always the node's; returns nothing."""
    string: str = readers.text()(value, path, problems)
    if string not in {"", "host"}:
        problems.append(
            f"{path}: {readers.shown(string)} is not supported: tasks run in the node's user"
            " namespace; remove the option, and set `user` in the task"
        )
    return ()


def _is_clean_path(path: str) -> bool:
    """Returns True for an absolute path without `..`: such parts lead past the operator's globs."""
    return path.startswith("/") and posixpath.normpath(f"/{path.lstrip('/')}") == path


def _names(string: str, prefix: str) -> bool:
    return string.startswith(prefix) and len(string) > len(prefix)
