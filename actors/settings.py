"""Validated options: of the driver (the agent's plugin block) and of one task (the job's config).

`plugin.options` has the table that checks and fills these; nothing else makes them in product code.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """Credentials of a registry. server_address binds them; empty means the image's registry."""

    username: str
    password: str = field(repr=False)
    server_address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverSettings:
    """Options of the driver. stats_interval_s 0 leaves the interval to Nomad.

    containerd_namespace empty means: `nomad`, or `nomad.slice` on a cgroup v2 host.
    total_mhz and cores describe the node as Nomad sees it, for the ticks of TaskStats.
    """

    enabled: bool = True
    containerd_runtime: str = "io.containerd.runc.v2"
    stats_interval_s: float = 1.0
    allow_privileged: bool = True
    auth: Auth | None = None
    containerd_address: str = "/run/containerd/containerd.sock"
    containerd_namespace: str = ""
    state_dir: str = "/run/nomad-driver-containerd"
    total_mhz: int = 0
    cores: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """The job's `config` block. None stands for "not given" where that differs from empty."""

    image: str
    image_pull_timeout_s: float = 300.0
    command: str = ""
    args: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cwd: str = ""
    hostname: str = ""
    host_network: bool = False
    host_dns: bool = True
    readonly_rootfs: bool = False
    auth: Auth | None = None
