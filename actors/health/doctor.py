"""What on this machine will not work, and what to do about it. Looks only; changes nothing."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from actors.blocking import file_servers
from actors.health import runtime_checks
from actors.health.findings import Finding, fail, ok, sentence, warn
from actors.images.docker_config import DockerConfig
from actors.model.node import Node
from actors.provision import stale_ports
from actors.provision.init_program import init_program
from containerd import daemon_process
from containerd.api import features
from containerd.registry.hosts import load
from containerd.registry.proxies import Proxies
from containerd.security import capabilities, known_holes
from proto.errors import DriverError
from workers import identity, protocol

CNI_DIRECTORIES = ("/opt/cni/bin", "/usr/lib/cni")
_CNI_PLUGINS = ("bridge", "firewall", "host-local", "loopback", "portmap")
_CONTROLLERS = ("cpu", "cpuset", "memory", "pids")
_V1_CONTROLLERS = (*_CONTROLLERS, "cpuacct", "devices", "freezer")
# openat2 and its RESOLVE_ flags.
_MIN_KERNEL = (5, 6)
_LOW_BYTES = 2 * 1024**3
_LOW_STATE_BYTES = 16 * 1024**2


async def examine(
    node: Node, root: Path = Path("/"), proxies: Mapping[str, str] | None = None
) -> list[Finding]:
    """Everything, in the order in which a start needs it.

    Args:
        node: the node.
        root: where the machine's files are.
        proxies: variables of the environment.
    """
    if os.geteuid() != 0:
        return [fail("user", "the driver needs root", "run this with sudo")]
    found = [_kernel(), *await _containerd(node)]
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (
        lambda: runtime_checks.look(node),
        lambda: _cgroups(node, root),
        lambda: _seccomp(node, root),
        lambda: _apparmor(root),
        lambda: _network(root),
        lambda: _ports(root),
        lambda: _registries(node),
        lambda: _proxies(proxies or {}),
        lambda: _init(node),
        lambda: _open_files(node, root),
        lambda: _logs(node, root),
        lambda: _state(node),
    )
    for look in looks:
        try:
            found += await file_servers.looked_at(lambda look=look: list(look()))  # type: ignore[misc]
        except DriverError as error:
            found.append(fail("files", sentence(error), error.resolution))
    return found


def _kernel() -> Finding:
    release = platform.release()
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdecimal())
    if numbers < _MIN_KERNEL:
        wanted = ".".join(str(number) for number in _MIN_KERNEL)
        return fail("kernel", f"Linux {release} is too old", f"use Linux {wanted} or later")
    return ok("kernel", f"Linux {release} {platform.machine()}")


async def _containerd(node: Node) -> list[Finding]:
    address = node.settings.containerd_address
    try:
        version = await node.containerd.version()
        there = await node.containerd.snapshotters()
        snapshotter = node.settings.snapshotter or node.containerd.default_snapshotter
        root = await node.containerd.snapshotter_root(snapshotter)
    except DriverError as error:
        advice = error.resolution or "apt-get install containerd runc; systemctl start containerd"
        return [fail("containerd", sentence(error), advice)]
    found = [ok("containerd", f"{version.version} at {address}, namespace {node.namespace}")]
    holes = await asyncio.to_thread(known_holes.of, "containerd", version.version)
    if holes:
        names = ", ".join(f"{hole.cve} ({hole.what})" for hole in holes)
        text = f"containerd {version.version} has known holes: {names}"
        found.append(warn("holes", text, runtime_checks.HOLES_ADVICE))
    lacking = features.lacking(version.version)
    if lacking:
        found.append(
            warn("layers", f"containerd {version.version} cannot {lacking}", "install a newer one")
        )
    if snapshotter not in there:
        found.append(
            fail(
                "snapshotter",
                f"containerd has no working {snapshotter}; it has {', '.join(there) or 'none'}",
                "set snapshotter in the plugin block to one of these, or see containerd's log",
            )
        )
    else:
        found.append(ok("snapshotter", snapshotter))
    if root:
        found.append(_disk(root))
    return found


def _disk(root: str) -> Finding:
    try:
        room = os.statvfs(root)
    except OSError as error:
        return warn("disk", f"{root}: {error.strerror}", "look at the directory's file system")
    free = room.f_bavail * room.f_frsize
    text = f"{free / 1e9:.1f} GB free for images and containers in {root}"
    if free < _LOW_BYTES:
        return warn("disk", text, "make room: pulls fail when it is full")
    if room.f_files and room.f_favail * 100 < room.f_files:
        return warn("disk", f"under 1 % of the inodes are free in {root}", "make room")
    return ok("disk", text)


def _cgroups(node: Node, root: Path) -> Iterator[Finding]:
    base = root / "sys/fs/cgroup"
    if node.cgroup_v2:
        enabled = _text(base / "cgroup.controllers").split()
        missing = [name for name in _CONTROLLERS if name not in enabled]
    else:
        missing = [name for name in _V1_CONTROLLERS if not (base / name).is_dir()]
    version = "v2" if node.cgroup_v2 else "v1"
    if missing:
        yield warn(
            "cgroups",
            f"{version} without {', '.join(missing)}: limits of that kind are not kept",
            "boot with them enabled; on some boards cgroup_enable=memory is missing",
        )
    else:
        yield ok("cgroups", f"{version} with {', '.join(_CONTROLLERS)}")


def _seccomp(node: Node, root: Path) -> Iterator[Finding]:
    if not (root / "proc/sys/kernel/seccomp/actions_avail").exists():
        yield warn(
            "seccomp",
            "the kernel has no seccomp: jobs with seccomp = true do not start",
            "use a kernel with CONFIG_SECCOMP_FILTER",
        )
        return
    directory = Path(node.settings.seccomp_profile_dir)
    file_servers.visit(str(directory), "seccomp_profile_dir")
    profiles = len(list(directory.glob("*.json"))) if directory.is_dir() else 0
    yield ok("seccomp", f"there; {profiles} profiles of yours in {directory}")


def _apparmor(root: Path) -> Iterator[Finding]:
    enabled = _text(root / "sys/module/apparmor/parameters/enabled").startswith("Y")
    yield ok("apparmor", "there" if enabled else "not enabled; jobs with a profile do not start")


def _network(root: Path) -> Iterator[Finding]:
    homes = [root / directory.lstrip("/") for directory in CNI_DIRECTORIES]
    missing = [name for name in _CNI_PLUGINS if not any((home / name).is_file() for home in homes)]
    if missing:
        yield warn(
            "cni",
            f"no {', '.join(missing)} in {' or '.join(CNI_DIRECTORIES)}: jobs with"
            ' network { mode = "bridge" } do not start',
            "apt-get install containernetworking-plugins, and set Nomad's cni_path to where it is",
        )
    else:
        yield ok("cni", f"{', '.join(_CNI_PLUGINS)}")
    # Absent until br_netfilter is loaded, which the first bridge network may do.
    if _text(root / "proc/sys/net/bridge/bridge-nf-call-iptables").strip() == "0":
        yield warn(
            "bridge",
            "net.bridge.bridge-nf-call-iptables is 0: Nomad's bridge mode loses packets",
            "sysctl net.bridge.bridge-nf-call-iptables=1",
        )


def _ports(root: Path) -> Iterator[Finding]:
    """Published ports that lead to an allocation that is gone.

    Docker's namespaces have other names, so nothing is said of rules where there are any.
    """
    names, dockers = root / "var/run/netns", root / "var/run/docker/netns"
    if dockers.is_dir() and any(dockers.iterdir()):
        return
    for stale in stale_ports.find(stale_ports.rules(), lambda name: (names / name).exists()):
        yield warn(
            "ports",
            f"port {stale.ports}/{stale.protocol} is redirected to {stale.target}, of allocation"
            f" {stale.alloc_id}, which has no network any more",
            stale.remedy,
        )


def _registries(node: Node) -> Iterator[Finding]:
    settings = node.settings
    directory = Path(settings.registry_config_path)
    file_servers.visit(str(directory), "registry_config_path")
    file_servers.visit(settings.auth_config, "auth.config")
    names = sorted(entry.name for entry in directory.iterdir()) if directory.is_dir() else []
    well = 0
    for name in names:
        try:
            load(str(directory), name)
            well += 1
        except DriverError as error:
            yield warn("registries", sentence(error), error.resolution)
    yield ok("registries", f"{well} with settings of their own in {directory}")
    if settings.auth_config:
        try:
            DockerConfig(settings.auth_config)
        except DriverError as error:
            yield warn("auth", f"{sentence(error)}: pulls fail", error.resolution)
        else:
            yield ok("auth", f"credentials from {settings.auth_config}")
    helper = f"docker-credential-{settings.auth_helper}"
    if settings.auth_helper and shutil.which(helper) is None:
        yield warn("auth", f"no program {helper}: pulls fail", "install it where PATH finds it")


def _proxies(variables: Mapping[str, str]) -> Iterator[Finding]:
    """Yields the proxies of this command's environment: the agent's own may differ."""
    try:
        told = list(Proxies(variables).told())
    except DriverError as error:
        yield warn("proxy", f"{sentence(error)}: pulls fail", error.resolution)
        return
    if told:
        direct = variables.get("NO_PROXY") or variables.get("no_proxy") or "nobody else"
        text = f"{'; '.join(told)}; this machine and {direct} directly"
        yield ok("proxy", f"{text}, as set here; the Nomad agent's own environment counts")
    else:
        yield ok("proxy", "none set here; pulls go by HTTPS_PROXY of the Nomad agent's environment")


def _init(node: Node) -> Iterator[Finding]:
    file_servers.visit(node.settings.init_path, "init_path")
    try:
        yield ok("init", init_program(node.settings))
    except DriverError as error:
        yield warn("init", "no init program: jobs with init = true do not start", error.resolution)


def _open_files(node: Node, root: Path) -> Iterator[Finding]:
    """The limit of tasks that name none, and whether containerd may give it."""
    daemon = daemon_process.look(node.settings.containerd_address)
    given = node.settings.default_ulimits.get("nofile")
    soft, hard = given or daemon.task_open_files()
    text = f"tasks get {soft} (soft) and {hard} (hard)"
    if daemon is not daemon_process.USUAL:
        text += f", containerd has {daemon.open_files[1]}"
    most = int(_text(root / "proc/sys/fs/nr_open").strip() or hard)
    if hard > most:
        advice = f"set nofile in default_ulimit to {most} or less, or raise fs.nr_open"
        yield fail("open files", f"{text}; the kernel allows {most}: no task starts", advice)
    elif not daemon.free and hard > daemon.open_files[1]:
        advice = "set nofile in default_ulimit to that or less, or LimitNOFILE in containerd's unit"
        yield fail("open files", f"{text} and may not give more: no task starts", advice)
    elif given is None and hard < daemon_process.OPEN_FILES[1]:
        advice = f"set LimitNOFILE={daemon_process.OPEN_FILES[1]} in containerd's unit"
        yield warn("open files", f"{text} and may not give more", advice)
    else:
        yield ok("open files", text)


def _logs(node: Node, root: Path) -> Iterator[Finding]:
    """Whether a FIFO may grow to log_buffer.size: beyond a limit that takes a capability."""
    size = node.settings.log_buffer_bytes
    limits = root / "proc/sys/fs"
    most = int(_text(limits / "pipe-max-size") or size)
    launcher = _launcher(node)
    who = f"the launcher (pid {launcher})" if launcher else "this process"
    may = _capabilities(_text(root / "proc" / (launcher or "self") / "status"))
    if size <= most or "CAP_SYS_RESOURCE" in may:
        yield ok("logs", f"{_kib(size)} of each wait for a reader")
        return
    text = (
        f"{_kib(most)} of each wait for a reader, not log_buffer.size ({_kib(size)}): {who} has no"
    )
    text += " CAP_SYS_RESOURCE"
    pages = int(_text(limits / "pipe-user-pages-soft") or 0)
    if pages and "CAP_SYS_ADMIN" not in may:
        text += f", and {_kib(pages * os.sysconf('SC_PAGE_SIZE'))} of all pipes of root together"
    yield warn(
        "logs",
        text,
        "give it to the launcher's unit, or to the agent or container that starts the launcher;"
        f" or sysctl fs.pipe-max-size={size}",
    )


def _launcher(node: Node) -> str:
    """The pid of the launcher that serves there; empty without one."""
    words = _text(node.state_dir / protocol.LAUNCHER_LOCK).split()
    pid = words[0] if len(words) > 1 and words[0].isdecimal() else ""
    return pid if pid and str(identity.start_ticks(int(pid))) == words[1] else ""


def _capabilities(status: str) -> frozenset[str]:
    """Those in force for the process of a /proc/PID/status."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return capabilities.of_mask(int(found[1], 16) if found else 0)


def _kib(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


def _state(node: Node) -> Iterator[Finding]:
    directory = node.state_dir
    home = next(path for path in (directory, *directory.parents) if os.path.lexists(path))
    if not home.is_dir():
        yield fail("state", f"{home} is no directory", "set state_dir in the plugin block")
        return
    room = os.statvfs(home)
    free = room.f_bavail * room.f_frsize
    if free < _LOW_STATE_BYTES:
        yield fail(
            "state", f"{free // 1024} KiB free for {directory}", "make room: starts fail without"
        )
    if directory == home:
        found = directory.stat()
        if found.st_uid != 0 or stat.S_IMODE(found.st_mode) & 0o077:
            yield fail(
                "state",
                f"{directory} is open to others",
                f"chown root {directory}; chmod 700 {directory}",
            )
        tasks = directory / "tasks"
        count = len(list(tasks.iterdir())) if tasks.is_dir() else 0
        yield ok("state", f"{directory}, {count} tasks")
    else:
        yield ok("state", f"{directory} will be made")


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
