"""A task's `security_opt`, in the form of Docker and nerdctl, and Podman's `selinux_opts`."""

from __future__ import annotations

import re
from typing import Any

from actors.model.settings import SELINUX_DISABLE, SELINUX_PARTS, SecurityOptions
from plugin.options import readers

_LABEL = re.compile(r"[A-Za-z0-9_.:,-]+")
_SWITCH = {"": True, "true": True, "1": True, "false": False, "0": False}
_SWITCHES = ("no-new-privileges", "writable-cgroups")
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
