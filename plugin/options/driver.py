"""Options of the driver: the agent's `plugin "containerd-driver" { config { … } }`."""

from __future__ import annotations

from actors.model.ownership import EXTRA_LABELS
from actors.model.settings import DriverSettings
from actors.model.shim_groups import ALLOC, TASK
from actors.model.task_logs import DRIVER, NOMAD, check_default
from plugin.options import foreign_plugin, gates, readers
from plugin.options.auth import DRIVER_AUTH, driver_auth
from plugin.options.forms import (
    addresses,
    extra_labels,
    log_buffer_bytes,
    log_drops,
    log_file_bytes,
    ulimits,
)
from plugin.options.logs import LOGGING, logging_block
from plugin.options.table import MAP, Option, block_fields, decode

_DANGLING = (
    Option(
        name="enabled",
        field="gc_dangling",
        hcl_type="bool",
        default="true",
        read=readers.boolean,
        doc="`false` removes nothing; `containerd-driver gc` still works.",
    ),
    Option(
        name="period",
        field="gc_dangling_period_s",
        hcl_type="string",
        default='"5m"',
        read=readers.duration_s(at_least=0.1),
        doc="Time between two sweeps; the first sweep comes after the longer of `period` and"
        " `creation_grace`.",
    ),
    Option(
        name="creation_grace",
        field="gc_dangling_grace_s",
        hcl_type="string",
        default='"5m"',
        read=readers.duration_s(at_least=0.1),
        doc="Age of an orphan at its removal; twice as much for a running orphan.",
    ),
    Option(
        name="dry_run",
        field="gc_dangling_dry_run",
        hcl_type="bool",
        default="false",
        read=readers.boolean,
        doc="`true` only logs the orphans.",
    ),
)


_GC = (
    Option(
        name="image",
        field="image_gc",
        hcl_type="bool",
        default="true",
        read=readers.boolean,
        doc="`false` keeps images for ever. Only images pulled by this driver are removed.",
    ),
    Option(
        name="image_delay",
        field="image_gc_delay_s",
        hcl_type="string",
        default='"1h"',
        read=readers.duration_s(),
        doc="Time that an image stays after the end of its last task.",
    ),
    Option(
        name="dangling_containers",
        hcl_type="block",
        nested=_DANGLING,
        read=block_fields(_DANGLING),
        doc="Removal of orphans: containers without a live task, with all their parts.",
    ),
    *foreign_plugin.GC,
)

_LOG_BUFFER = (
    Option(
        name="size",
        field="log_buffer_bytes",
        hcl_type="string",
        default='"16M"',
        read=log_buffer_bytes,
        doc="Most bytes that wait for a reader, for stdout and stderr each, in memory of the"
        " kernel: 64K to 1G, rounded up to a power of two.",
    ),
    Option(
        name="when_full",
        field="log_drops",
        hcl_type="string",
        default='"drop_oldest"',
        read=log_drops,
        doc="`drop_oldest`, or `block`: the task waits at its next write until a reader comes.",
    ),
)

_LOG_FILES = (
    Option(
        name="max_files",
        field="log_max_files",
        hcl_type="number",
        default="10",
        read=readers.integer(1, 10_000),
        doc="Most files of stdout and stderr each; the oldest file is removed.",
    ),
    Option(
        name="max_file_size",
        field="log_max_file_bytes",
        hcl_type="string",
        default='"10M"',
        read=log_file_bytes,
        doc="Largest size of a file: 64K to 1T.",
    ),
)


OPTIONS: tuple[Option, ...] = (
    Option(
        name="enabled",
        hcl_type="bool",
        default="true",
        read=readers.boolean,
        doc="`false` hides the driver on this node.",
    ),
    Option(
        name="containerd_runtime",
        hcl_type="string",
        default='"io.containerd.runc.v2"',
        read=readers.required_text,
        doc="Runtime of tasks without `runtime`: `io.containerd.runc.v2`, `io.containerd.runsc.v1`"
        " …, or `runc`, `crun`, `runsc`, `kata`, `nvidia`.",
    ),
    Option(
        name="stats_interval",
        field="stats_interval_s",
        hcl_type="string",
        default='"1s"',
        read=readers.duration_s(at_least=0.1),
        doc="Time between two samples of a task's statistics, while a client reads them.",
    ),
    Option(
        name="seccomp_profile_dir",
        hcl_type="string",
        default='"/opt/seccomp"',
        read=readers.required_path,
        doc="Directory of the files that a task's `seccomp_profile` may name.",
    ),
    Option(
        name="auth",
        hcl_type="block",
        nested=DRIVER_AUTH,
        read=driver_auth,
        doc="Credentials for jobs without `auth`. User and password are sent only to"
        " `server_address`, by default to `docker.io`.",
    ),
    Option(
        name="registry_config_path",
        hcl_type="string",
        default='"/etc/containerd/certs.d"',
        read=readers.absolute_path,
        doc="Directory with `<registry>/hosts.toml`: mirrors, plain HTTP, CA and client"
        " certificates.",
    ),
    Option(
        name="snapshotter",
        hcl_type="string",
        default='""',
        read=readers.containerd_name,
        doc="Snapshotter of tasks without `snapshotter`; empty: `overlayfs`.",
    ),
    Option(
        name="image_pull_timeout",
        field="image_pull_timeout_s",
        hcl_type="string",
        default='"5m"',
        read=readers.duration_s(at_least=0.001),
        doc="Longest time of a pull for jobs without `image_pull_timeout`.",
    ),
    Option(
        name="pull_activity_timeout",
        field="pull_activity_timeout_s",
        hcl_type="string",
        default='"30s"',
        read=readers.duration_s(at_least=1.0),
        doc="A pull fails when it has received almost no data for this long.",
    ),
    Option(
        name="gc",
        hcl_type="block",
        nested=_GC,
        read=block_fields(_GC),
        doc="Removal of unused images and of orphans.",
    ),
    Option(
        name="log_buffer",
        hcl_type="block",
        nested=_LOG_BUFFER,
        read=block_fields(_LOG_BUFFER),
        doc="Output of a task without a reader, for example after the death of Nomad's `logmon`,"
        " or with a full disk below the log files.",
    ),
    Option(
        name="log_collection",
        hcl_type="string",
        implied='"nomad"',
        read=readers.choice(NOMAD, DRIVER),
        doc="`nomad`: Nomad starts a process `logmon` for each task, which writes the log files;"
        " `driver`: the task's worker writes the files, without `logmon`.",
    ),
    Option(
        name="log_files",
        hcl_type="block",
        nested=_LOG_FILES,
        read=block_fields(_LOG_FILES),
        doc='Log files with `log_collection = "driver"`: Nomad does not send the numbers of a'
        " job's `logs` block to drivers.",
    ),
    Option(
        name="logging",
        hcl_type="block",
        nested=LOGGING,
        read=logging_block,
        doc='Logs of tasks without `logging`, where `log_collection = "driver"`.',
    ),
    Option(
        name="extra_labels",
        hcl_type="list(string)",
        implied="[]",
        read=extra_labels,
        doc="Labels on containerd's containers, `com.hashicorp.nomad.NAME`, with `*` in NAME: "
        + ", ".join(f"`{name}`" for name in EXTRA_LABELS)
        + ".",
    ),
    Option(
        name="dns_servers",
        hcl_type="list(string)",
        implied="[]",
        read=addresses,
        doc="DNS servers of tasks without servers of their own; empty: those of the node.",
    ),
    Option(
        name="shim_per",
        hcl_type="string",
        default='"task"',
        read=readers.choice(TASK, ALLOC),
        doc="`task`: each task has a shim of containerd; `alloc`: the tasks of an allocation with"
        " the same runtime (runc or crun) share one shim, which saves memory. The end of a shared"
        " shim ends all its tasks, see [operations.md](operations.md#one-shim-for-an-allocation).",
    ),
    Option(
        name="network_creation",
        hcl_type="string",
        default='"nomad"',
        read=readers.choice(NOMAD, DRIVER),
        doc="`driver`: the driver creates the network namespace of an allocation, and `network {"
        " hostname }` of a job names the tasks; Nomad 1.11.2 or newer. A group that also has a task"
        " of Nomad's docker driver then fails, see [networking.md](networking.md#host-names).",
    ),
    Option(
        name="selinux_enabled",
        hcl_type="bool",
        default="false",
        read=readers.boolean,
        doc="`true` confines tasks by SELinux, with two categories for each allocation, on a node"
        " with an SELinux policy; needs `container-selinux`. See"
        " [security.md](security.md#selinux).",
    ),
    Option(
        name="init_path",
        hcl_type="string",
        default='""',
        read=readers.absolute_path,
        doc="Static program for `init = true`; empty: `catatonit` or `tini-static` of this"
        " machine.",
    ),
    Option(
        name="image_healthchecks",
        hcl_type="bool",
        default="false",
        read=readers.boolean,
        doc="`true` runs the HEALTHCHECK of an image for jobs without a"
        " [`healthcheck`](#process) block.",
    ),
    Option(
        name="default_ulimit",
        field="default_ulimits",
        hcl_type=MAP,
        read=ulimits,
        doc="Limits of tasks that do not set their own, written as a task's `ulimit`; default:"
        ' `nofile = "1024:524288"`.',
    ),
    Option(
        name="oom_score_adj",
        hcl_type="number",
        default="0",
        read=readers.integer(0, 1000),
        doc="OOM score of tasks without `oom_score_adj`.",
    ),
    Option(
        name="cdi_spec_dirs",
        hcl_type="list(string)",
        default='["/etc/cdi", "/var/run/cdi"]',
        read=readers.absolute_paths,
        doc="Directories with device descriptions of the Container Device Interface.",
    ),
    Option(
        name="containerd_address",
        hcl_type="string",
        default='"/run/containerd/containerd.sock"',
        read=readers.required_path,
        doc="containerd's socket.",
    ),
    Option(
        name="containerd_namespace",
        hcl_type="string",
        default='""',
        read=readers.containerd_name,
        doc="containerd's namespace; empty: `nomad`, or `nomad.slice` on cgroup v2.",
    ),
    Option(
        name="state_dir",
        hcl_type="string",
        default='"/run/nomad-driver-containerd"',
        read=readers.required_path,
        doc="Directory of the sockets and exit records of launcher and workers; must not survive"
        " a reboot.",
    ),
    *gates.OPTIONS,
    *foreign_plugin.DRIVER,
)


def driver_settings(packed: bytes, *, total_mhz: int = 0, cores: int = 0) -> DriverSettings:
    """Reads the driver's settings from the plugin block.

    Args:
        packed: msgpack of the block, as Nomad sends it; empty for a plugin without a block.
        total_mhz: speed of all cores together, from Nomad's topology; 0 if unknown.
        cores: number of cores, from Nomad's topology; 0 if unknown.

    Raises:
        DriverError: code INVALID, with every problem in the block.
    """
    fields = decode(OPTIONS, packed, "the plugin block of containerd-driver")
    node, spaces = gates.gates(fields)
    settings = DriverSettings(
        **fields, total_mhz=total_mhz, cores=cores, gates=node, namespace_gates=spaces
    )
    check_default(settings)
    return settings
