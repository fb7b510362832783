"""Checks of this machine for the doctor command. The checks change nothing."""

from __future__ import annotations

import os
import platform
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from actors.blocking import file_servers
from actors.health import (
    confinement_checks,
    containerd_checks,
    network_checks,
    place_checks,
    runtime_checks,
    selinux_checks,
)
from actors.health.findings import Finding, fail, ok, sentence, warn
from actors.images.docker_config import DockerConfig
from actors.model.cni import CNI_DIRECTORIES
from actors.model.node import Node
from actors.provision import stale_ports
from actors.provision.init_program import init_program
from containerd import daemon_process
from containerd.registry.hosts import load
from containerd.registry.proxies import Proxies
from containerd.security import capabilities
from proto.errors import DriverError
from workers import identity, protocol

_CNI_PLUGINS = ("bridge", "firewall", "host-local", "loopback", "portmap")
_CONTROLLERS = ("cpu", "cpuset", "memory", "pids")
_V1_CONTROLLERS = (*_CONTROLLERS, "cpuacct", "devices", "freezer")
# The first kernel with openat2 and the RESOLVE_ flags.
_MIN_KERNEL = (5, 6)
_LOW_STATE_BYTES = 16 * 1024**2


async def examine(
    node: Node, root: Path = Path("/"), proxies: Mapping[str, str] | None = None
) -> list[Finding]:
    """Runs all checks, in the order in which a start needs the results.

    Args:
        node: the node and the driver's settings.
        root: root of the machine's files; tests use another directory.
        proxies: variables of the environment that name proxies.
    """
    findings = [_kernel(), *_user(node, root), *await containerd_checks.check(node)]
    snapshots = await containerd_checks.snapshots(node)
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        lambda: place_checks.check(node, snapshots),
        lambda: runtime_checks.check(node),
        lambda: _cgroups(node, root),
        lambda: confinement_checks.check(node, root),
        lambda: selinux_checks.check(node, root),
        lambda: _network(root),
        lambda: network_checks.check(root),
        lambda: _ports(root),
        lambda: _registries(node),
        lambda: _proxies(proxies or {}),
        lambda: _init(node),
        lambda: _open_files(node, root),
        lambda: _logs(node, root),
        lambda: _state(node),
        lambda: confinement_checks.gates(node),
    )
    for check in checks:
        try:
            findings += await file_servers.run_probed(lambda check=check: list(check()))  # type: ignore[misc]
        except DriverError as error:
            findings.append(fail("files", sentence(error), error.resolution))
    return findings


def _kernel() -> Finding:
    release = platform.release()
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdecimal())
    if numbers < _MIN_KERNEL:
        minimum = ".".join(str(number) for number in _MIN_KERNEL)
        return fail("kernel", f"Linux {release} is too old", f"use Linux {minimum} or later")
    return ok("kernel", f"Linux {release} {platform.machine()}")


def _user(node: Node, root: Path) -> Iterator[Finding]:
    if node.rootless:
        user = _text(root / "proc/self/uid_map").split()[1:2]
        yield ok("user", f"root of a user namespace, user {''.join(user)} of the machine")


def _cgroups(node: Node, root: Path) -> Iterator[Finding]:
    base = root / "sys/fs/cgroup"
    if node.cgroup_v2:
        enabled = _text(base / "cgroup.controllers").split()
        missing = [name for name in _CONTROLLERS if name not in enabled]
    else:
        missing = [name for name in _V1_CONTROLLERS if not (base / name).is_dir()]
    version = "v2" if node.cgroup_v2 else "v1"
    if not node.cgroups:
        yield warn(
            "cgroups",
            f"{version}, not writable for the user of this containerd: tasks have no limits of"
            " memory, CPU and processes, and no statistics",
            "see docs/rootless.md",
        )
    elif missing:
        yield warn(
            "cgroups",
            f"{version} without {', '.join(missing)}: the kernel does not enforce these limits",
            "enable the controllers at boot, on some boards with cgroup_enable=memory",
        )
    else:
        yield ok("cgroups", f"{version} with {', '.join(_CONTROLLERS)}")


def _network(root: Path) -> Iterator[Finding]:
    folders = [root / directory.lstrip("/") for directory in CNI_DIRECTORIES]
    missing = [name for name in _CNI_PLUGINS if not any((f / name).is_file() for f in folders)]
    if missing:
        yield warn(
            "cni",
            f"no {', '.join(missing)} in {' or '.join(CNI_DIRECTORIES)}: jobs with"
            ' network { mode = "bridge" } do not start',
            "apt-get install containernetworking-plugins, and set Nomad's cni_path",
        )
    else:
        yield ok("cni", f"{', '.join(_CNI_PLUGINS)}")
    # The file is absent until the kernel loads br_netfilter, perhaps at the first bridge network.
    if _text(root / "proc/sys/net/bridge/bridge-nf-call-iptables").strip() == "0":
        yield warn(
            "bridge",
            "net.bridge.bridge-nf-call-iptables is 0: Nomad's bridge mode loses packets",
            "sysctl net.bridge.bridge-nf-call-iptables=1",
        )


def _ports(root: Path) -> Iterator[Finding]:
    """Yields published ports that lead to an allocation without a network.

    Docker's namespaces have other names, so the check is skipped on a machine with such namespaces.
    """
    names, dockers = root / "var/run/netns", root / "var/run/docker/netns"
    if dockers.is_dir() and any(dockers.iterdir()):
        return
    for stale in stale_ports.find(stale_ports.rules(), lambda name: (names / name).exists()):
        yield warn(
            "ports",
            f"port {stale.ports}/{stale.protocol} is redirected to {stale.target}, of allocation"
            f" {stale.alloc_id}, whose network no longer exists",
            stale.advice,
        )


def _registries(node: Node) -> Iterator[Finding]:
    settings = node.settings
    directory = Path(settings.registry_config_path)
    file_servers.visit(str(directory), "registry_config_path")
    file_servers.visit(settings.auth_config, "auth.config")
    names = sorted(entry.name for entry in directory.iterdir()) if directory.is_dir() else []
    readable = 0
    for name in names:
        try:
            load(str(directory), name)
            readable += 1
        except DriverError as error:
            yield warn("registries", sentence(error), error.resolution)
    yield ok("registries", f"{readable} with settings in {directory}")
    if settings.auth_config:
        try:
            DockerConfig(settings.auth_config)
        except DriverError as error:
            yield warn("auth", f"{sentence(error)}: pulls fail", error.resolution)
        else:
            yield ok("auth", f"credentials from {settings.auth_config}")
    helper = f"docker-credential-{settings.auth_helper}"
    if settings.auth_helper and shutil.which(helper) is None:
        yield warn("auth", f"no program {helper}: pulls fail", "install the program in PATH")


def _proxies(variables: Mapping[str, str]) -> Iterator[Finding]:
    """Yields the proxies of this command's environment. The agent's environment may differ."""
    try:
        sentences = list(Proxies(variables).sentences())
    except DriverError as error:
        yield warn("proxy", f"{sentence(error)}: pulls fail", error.resolution)
        return
    if sentences:
        direct = variables.get("NO_PROXY") or variables.get("no_proxy") or "no other host"
        text = f"{'; '.join(sentences)}; this machine and {direct} directly"
        yield ok("proxy", f"{text}, from this environment; pulls use the Nomad agent's environment")
    else:
        yield ok(
            "proxy",
            "none in this environment; pulls use HTTPS_PROXY of the Nomad agent's environment",
        )


def _init(node: Node) -> Iterator[Finding]:
    file_servers.visit(node.settings.init_path, "init_path")
    try:
        yield ok("init", init_program(node.settings))
    except DriverError as error:
        yield warn("init", "no init program: jobs with init = true do not start", error.resolution)


def _open_files(node: Node, root: Path) -> Iterator[Finding]:
    """Checks the default limit of open files for tasks: can containerd grant the limit?"""
    daemon = daemon_process.inspect(node.settings.containerd_address)
    configured = node.settings.default_ulimits.get("nofile")
    soft, hard = configured or daemon.task_open_files()
    text = f"tasks get {soft} (soft) and {hard} (hard)"
    if daemon is not daemon_process.USUAL:
        text += f", containerd has {daemon.open_files[1]}"
    most = int(_text(root / "proc/sys/fs/nr_open").strip() or hard)
    if hard > most:
        advice = f"set nofile in default_ulimit to {most} or less, or raise fs.nr_open"
        yield fail("open files", f"{text}; the kernel allows {most}: no task starts", advice)
    elif not daemon.raises_limits and hard > daemon.open_files[1]:
        advice = "lower nofile in default_ulimit, or raise LimitNOFILE in containerd's unit"
        yield fail("open files", f"{text} and cannot grant more: no task starts", advice)
    elif configured is None and hard < daemon_process.OPEN_FILES[1]:
        advice = f"set LimitNOFILE={daemon_process.OPEN_FILES[1]} in containerd's unit"
        yield warn("open files", f"{text} and cannot grant more", advice)
    else:
        yield ok("open files", text)


def _logs(node: Node, root: Path) -> Iterator[Finding]:
    """Checks the size of log FIFOs: a log_buffer.size above a limit needs a capability."""
    size = node.settings.log_buffer_bytes
    limits = root / "proc/sys/fs"
    most = int(_text(limits / "pipe-max-size") or size)
    launcher = _launcher(node)
    process = f"the launcher (pid {launcher})" if launcher else "this process"
    held = capabilities.effective(_text(root / "proc" / (launcher or "self") / "status"))
    if node.rootless:  # the kernel asks for a capability of the machine
        held = frozenset()
    if size <= most or "CAP_SYS_RESOURCE" in held:
        yield ok("logs", f"each log holds {_kib(size)} without a reader")
        return
    text = (
        f"each log holds {_kib(most)} without a reader, not log_buffer.size ({_kib(size)}):"
        f" {process} has no CAP_SYS_RESOURCE"
    )
    pages = int(_text(limits / "pipe-user-pages-soft") or 0)
    if pages and "CAP_SYS_ADMIN" not in held:
        text += f"; all pipes of this user together hold {_kib(pages * os.sysconf('SC_PAGE_SIZE'))}"
    yield warn(
        "logs",
        text,
        f"sysctl fs.pipe-max-size={size}"
        if node.rootless
        else "give the capability to the launcher's unit, or to the agent or container that starts"
        f" the launcher; or sysctl fs.pipe-max-size={size}",
    )


def _launcher(node: Node) -> str:
    """Returns the pid of the launcher of this state directory; empty without a launcher."""
    words = _text(node.state_dir / protocol.LAUNCHER_LOCK).split()
    pid = words[0] if len(words) > 1 and words[0].isdecimal() else ""
    return pid if pid and str(identity.start_ticks(int(pid))) == words[1] else ""


def _kib(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


def _state(node: Node) -> Iterator[Finding]:
    directory = node.state_dir
    existing = next(path for path in (directory, *directory.parents) if os.path.lexists(path))
    if not existing.is_dir():
        yield fail("state", f"{existing} is no directory", "set state_dir in the plugin block")
        return
    space = os.statvfs(existing)
    free = space.f_bavail * space.f_frsize
    if free < _LOW_STATE_BYTES:
        yield fail(
            "state",
            f"{free // 1024} KiB free for {directory}",
            "free disk space: starts need some space there",
        )
    if directory == existing:
        status = directory.stat()
        if status.st_uid != 0 or stat.S_IMODE(status.st_mode) & 0o077:
            yield fail(
                "state",
                f"{directory} is open to others",
                f"chown root {directory}; chmod 700 {directory}",
            )
            return
        tasks = directory / "tasks"
        count = len(list(tasks.iterdir())) if tasks.is_dir() else 0
        yield ok("state", f"{directory}, {count} tasks")
    else:
        yield ok("state", f"{directory} will be created")


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
