"""Checks of the kernel's confinement: seccomp, AppArmor, and the operator's gates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from actors.blocking import file_servers
from actors.health.findings import Finding, fail, ok, warn
from actors.model.node import Node
from actors.model.settings import DriverSettings
from actors.processes import apparmor_loader
from containerd.security import apparmor
from containerd.security.policy import apparmor_is_enabled

_NO_APPARMOR = "AppArmor is not enabled in the kernel: default_apparmor has no effect"


def loads_profile(settings: DriverSettings) -> bool:
    """Returns True if jobs may get the driver's own AppArmor profile without asking for one."""
    return settings.enabled and apparmor.NAME in _default_profiles(settings)


def shortfall(settings: DriverSettings) -> str:
    """Returns a sentence about a default profile that the kernel cannot enforce; else empty."""
    return _NO_APPARMOR if _default_profiles(settings) and not apparmor_is_enabled() else ""


def check(node: Node, root: Path) -> Iterator[Finding]:
    """Yields findings about the filters and profiles of tasks. Blocks.

    Args:
        node: the node and the driver's settings.
        root: root of the machine's files; tests use another directory.
    """
    yield from _seccomp(node, root)
    yield from _apparmor(node.settings, root)


def gates(node: Node) -> Iterator[Finding]:
    """Tells the operator which options of jobs have no limit, for the node and each namespace."""
    settings = node.settings
    for name, gates in {"": settings.gates, **settings.namespace_gates}.items():
        jobs = f"jobs of namespace {name}" if name else "jobs"
        open_gates = ", ".join(gates.open()) or "none"
        yield ok("gates", f"open for {jobs}: {open_gates}; hardened = true closes most of them")


def _seccomp(node: Node, root: Path) -> Iterator[Finding]:
    if not (root / "proc/sys/kernel/seccomp/actions_avail").exists():
        yield warn(
            "seccomp",
            "the kernel has no seccomp: jobs with a filter do not start",
            "use a kernel with CONFIG_SECCOMP_FILTER",
        )
        return
    directory = Path(node.settings.seccomp_profile_dir)
    file_servers.visit(str(directory), "seccomp_profile_dir")
    profiles = len(list(directory.glob("*.json"))) if directory.is_dir() else 0
    yield ok("seccomp", f"available; {profiles} profiles in {directory}")


def _apparmor(settings: DriverSettings, root: Path) -> Iterator[Finding]:
    wanted = _default_profiles(settings)
    if not apparmor_is_enabled(root):
        if wanted:
            yield warn("apparmor", _NO_APPARMOR, "boot a kernel that has AppArmor with apparmor=1")
        else:
            yield ok("apparmor", "not enabled; jobs with a profile do not start")
        return
    if apparmor.NAME in wanted and apparmor_loader.parser() is None:
        yield fail(
            "apparmor",
            f"no program apparmor_parser: tasks with the profile {apparmor.NAME} do not start",
            "apt-get install apparmor",
        )
    loaded = _loaded(root)
    for name in sorted(wanted - {apparmor.NAME} - loaded) if loaded else ():
        yield fail(
            "apparmor",
            f"the profile {name} of default_apparmor is not loaded: tasks with it do not start",
            "load the profile by apparmor_parser -r FILE",
        )
    shown = ", ".join(sorted(wanted)) or "no profile"
    yield ok("apparmor", f"available; tasks get {shown} by default")


def _default_profiles(settings: DriverSettings) -> set[str]:
    return {gates.default_apparmor for gates in settings.every_gates()} - {""}


def _loaded(root: Path) -> set[str]:
    """Returns the names of loaded profiles; empty where the kernel's list cannot be read."""
    try:
        lines = (root / "sys/kernel/security/apparmor/profiles").read_text().splitlines()
    except OSError:
        return set()
    return {line.rpartition(" (")[0] for line in lines}
