"""Options of a task: the job's `config { … }`."""

from __future__ import annotations

from actors.model.settings import TaskOptions
from plugin.options import foreign, forms, healthcheck, isolation, readers
from plugin.options.image import IMAGE
from plugin.options.logs import LOGGING, logging_block
from plugin.options.mounts import MOUNT, devices, mounts, tmpfs, volumes
from plugin.options.resources import RESOURCES
from plugin.options.table import MAP, Option, decode

_PROCESS = (
    Option(
        name="command",
        hcl_type="string",
        read=readers.text(readers.MAX_ARGUMENT_BYTES),
        doc="Replaces the image's CMD, and comes after the ENTRYPOINT or `entrypoint`.",
    ),
    Option(
        name="args",
        hcl_type="list(string)",
        read=readers.words,
        doc="Arguments after `command` or `entrypoint`; `args` alone replaces CMD.",
    ),
    Option(
        name="entrypoint",
        hcl_type="any",
        read=forms.entrypoint,
        doc='Replaces ENTRYPOINT and CMD, as a list or as one word; `[""]` clears the image\'s'
        " ENTRYPOINT.",
    ),
    Option(
        name="cwd",
        hcl_type="string",
        read=readers.container_path,
        doc="Working directory; an absent directory is created.",
    ),
    Option(
        name="work_dir",
        field="cwd",
        hcl_type="string",
        read=readers.container_path,
        doc="Docker's name of `cwd`.",
    ),
    Option(
        name="working_dir",
        field="cwd",
        hcl_type="string",
        read=readers.container_path,
        doc="Podman's name of `cwd`.",
    ),
    Option(
        name="group_add",
        hcl_type="list(string)",
        read=readers.texts,
        doc="More groups of the task's user, by the image's names or by number.",
    ),
    Option(
        name="umask",
        hcl_type="string",
        read=forms.umask,
        doc="Permission bits that new files do not get, in octal, such as `027`; default: the"
        " runtime's, 022.",
    ),
    Option(
        name="init",
        hcl_type="bool",
        default="false",
        read=readers.boolean,
        doc="`true` runs a small init as process 1: reaps orphans, passes signals on.",
    ),
    Option(
        name="tty",
        hcl_type="bool",
        default="false",
        read=readers.boolean,
        doc="`true` gives the task a terminal: all output is in stdout, with CR LF at the end of a"
        " line, and TERM is `xterm` unless set.",
    ),
    Option(
        name="interactive",
        hcl_type="bool",
        default="false",
        read=readers.boolean,
        doc="`true` keeps stdin open, without input and without an end; `false`: no stdin.",
    ),
    Option(
        name="stop_signal",
        hcl_type="string",
        read=forms.signal_name,
        doc="Signal of a stop, if the job has no `kill_signal`; default: the image's, else"
        " SIGTERM.",
    ),
    Option(
        name="runtime",
        hcl_type="string",
        read=readers.text(),
        doc="Runtime of this task, written as `containerd_runtime`.",
    ),
    Option(
        name="labels",
        hcl_type=MAP,
        read=forms.labels,
        doc="Labels on containerd's container.",
    ),
    Option(
        name="extra_labels",
        hcl_type="list(string)",
        read=forms.extra_labels,
        doc="Nomad's names of the task as labels, instead of the driver's `extra_labels`.",
    ),
    Option(
        name="annotations",
        hcl_type=MAP,
        read=forms.annotation_texts,
        doc="Annotations of the OCI spec, which a runtime may obey. The driver's"
        " `allow_annotations` must allow each.",
    ),
    Option(
        name="logging",
        hcl_type="block",
        nested=LOGGING,
        read=logging_block,
        doc="The task's log, in Docker's form.",
    ),
    *healthcheck.OPTIONS,
)
_ISOLATION = (
    Option(
        name="privileged",
        hcl_type="bool",
        default="false",
        read=readers.boolean,
        doc="`true` gives all capabilities and all devices of the host.",
    ),
    Option(
        name="cap_add",
        hcl_type="list(string)",
        read=readers.texts,
        doc="Capabilities to add, such as `SYS_ADMIN`, or `all`.",
    ),
    Option(
        name="cap_drop",
        hcl_type="list(string)",
        read=readers.texts,
        doc="Capabilities to drop, or `all`.",
    ),
    Option(
        name="seccomp",
        hcl_type="bool",
        default="false",
        read=readers.boolean,
        doc="`true` filters system calls by the default profile.",
    ),
    Option(
        name="seccomp_profile",
        hcl_type="string",
        read=readers.text(),
        doc="A profile of your own in Docker's JSON, below the driver's `seccomp_profile_dir`;"
        " needs `seccomp = true`.",
    ),
    Option(
        name="apparmor_profile",
        hcl_type="string",
        read=readers.text(256),
        doc="AppArmor profile of the task; the profile must be loaded on the host.",
    ),
    Option(
        name="security_opt",
        hcl_type="list(string)",
        read=isolation.security_opt,
        doc="Docker's list: `no-new-privileges`, `seccomp=unconfined` or a profile's path,"
        " `apparmor=unconfined` or a profile's name, `label=disable` or"
        " `label=type:…` as in `selinux_opts`; nerdctl's"
        " `systempaths=unconfined` and `writable-cgroups`.",
    ),
    Option(
        name="selinux_opts",
        hcl_type="list(string)",
        read=isolation.selinux_opts,
        doc="Podman's list: `disable`, or `type:…`, `level:…`, `user:…`, `role:…`, `filetype:…`. No"
        " effect without `selinux_enabled` in the plugin block, or without SELinux on the node.",
    ),
    Option(
        name="readonly_rootfs",
        hcl_type="bool",
        default="false",
        read=readers.boolean,
        doc="`true` makes the container's root read-only.",
    ),
    Option(
        name="cgroupns",
        hcl_type="string",
        default='""',
        read=readers.host_mode("Invalid cgroupns. Set cgroupns=host or cgroupns=private."),
        doc="`host` shows the cgroups of the node below /sys/fs/cgroup; `private`, the default,"
        " those of the task.",
    ),
    Option(
        name="pid_mode",
        hcl_type="string",
        default='""',
        read=isolation.process_mode("pid_mode", "private"),
        doc="`host` shares the host's process namespace, `task:NAME` that of a running task of the"
        " group, see [networking.md](networking.md#tasks-that-share-a-namespace).",
    ),
    Option(
        name="ipc_mode",
        hcl_type="string",
        default='""',
        read=isolation.process_mode("ipc_mode", "private", "shareable"),
        doc="`host` shares the host's System V IPC, message queues and /dev/shm, `task:NAME` those"
        " of a running task of the group; `private` and `shareable`: own ones.",
    ),
    Option(
        name="uts_mode",
        hcl_type="string",
        default='""',
        read=readers.host_mode("Invalid uts_mode. Set uts_mode=host to share the host's."),
        doc="`host` shares the host's name.",
    ),
)
_NETWORK = (
    Option(
        name="hostname",
        hcl_type="string",
        read=readers.hostname,
        doc="Host name in the container; default: task name and the alloc's first 8 digits.",
    ),
    Option(
        name="host_network",
        hcl_type="bool",
        default="false",
        read=readers.boolean,
        doc="`true` uses the host's network; not together with a `bridge` network of the group.",
    ),
    Option(
        name="network_mode",
        hcl_type="string",
        read=isolation.network_mode,
        doc="`host` is `host_network = true`, `none` a network with loopback alone, `bridge` the"
        " group's network. `task:NAME`, `container:ID` and `ns:/PATH` share another network, see"
        " [networking.md](networking.md#tasks-that-share-a-namespace).",
    ),
    Option(
        name="ports",
        hcl_type="list(string)",
        read=readers.texts,
        doc="Labels of ports in the group's `network` block, which Nomad maps.",
    ),
    Option(
        name="userns_mode",
        field="warnings",
        hcl_type="string",
        read=isolation.user_mode,
        doc="Only `host`: tasks run in the node's user namespace.",
    ),
    Option(
        name="userns",
        field="warnings",
        hcl_type="string",
        read=isolation.user_mode,
        doc="Podman's name of `userns_mode`.",
    ),
    Option(
        name="host_dns",
        hcl_type="bool",
        default="true",
        read=readers.boolean,
        doc="`false` keeps the image's `/etc/resolv.conf`, unless the group has a `dns` block.",
    ),
    Option(
        name="dns_servers",
        hcl_type="list(string)",
        read=forms.addresses,
        doc="Addresses of DNS servers in `/etc/resolv.conf`, instead of the node's. A `dns` block"
        " of the group's network replaces all three options.",
    ),
    Option(
        name="dns_search_domains",
        field="dns_searches",
        hcl_type="list(string)",
        read=forms.resolver_words,
        doc="Domains of `search` in `/etc/resolv.conf`, instead of the node's.",
    ),
    Option(
        name="dns_options",
        hcl_type="list(string)",
        read=forms.resolver_words,
        doc="Words of `options` in `/etc/resolv.conf`, instead of the node's.",
    ),
    Option(
        name="advertise_ipv6_address",
        field="advertise_ipv6",
        hcl_type="bool",
        default="false",
        read=readers.boolean,
        doc='`true` gives services with `address_mode = "driver"` the IPv6 address of the task.',
    ),
    Option(
        name="extra_hosts",
        hcl_type="list(string)",
        read=forms.extra_hosts,
        doc="Lines for /etc/hosts, as `name:address`; the address `host-gateway` is the host's.",
    ),
)
_FILES = (
    Option(
        name="devices",
        hcl_type="any",
        read=devices,
        doc='Devices of the host: `"/dev/fuse"`, `"/dev/a:/dev/b:rw"`, blocks with `host_path`,'
        ' `container_path`, `cgroup_permissions`, or CDI names as `"vendor.com/gpu=0"`.',
    ),
    Option(
        name="mounts",
        hcl_type="block list",
        nested=MOUNT,
        repeated=True,
        read=mounts,
        doc="Mounts with fstab options or with Docker's keys.",
    ),
    Option(
        name="mount",
        field="mounts",
        hcl_type="block list",
        nested=MOUNT,
        repeated=True,
        read=mounts,
        doc="Another name of `mounts`.",
    ),
    Option(
        name="volumes",
        field="mounts",
        hcl_type="list(string)",
        read=volumes,
        doc="Bind mounts as `source:target:options`.",
    ),
    Option(
        name="tmpfs",
        field="mounts",
        hcl_type="list(string)",
        read=tmpfs,
        doc="File systems in memory as `target` or `target:options`, with a copy of the image's"
        " files at the target, as with Podman; the option `notmpcopyup` leaves the copy out.",
    ),
)

GROUPS: tuple[tuple[str, tuple[Option, ...]], ...] = (
    ("Image", IMAGE),
    ("Process", _PROCESS),
    ("Resources", RESOURCES),
    ("Isolation", _ISOLATION),
    ("Network", _NETWORK),
    ("Devices and mounts", _FILES),
    ("Options of docker and podman", foreign.TASK),
)
"""Options by subject, in the order of docs/options.md."""
OPTIONS: tuple[Option, ...] = tuple(option for _, group in GROUPS for option in group)


def task_options(packed: bytes) -> TaskOptions:
    """Reads a task's options from the job's `config` block.

    Args:
        packed: msgpack of the block, as Nomad sends it.

    Raises:
        DriverError: code INVALID, `failed to decode driver config`, with every problem.
    """
    fields = decode(OPTIONS, packed, "the task's config")
    if fields.get("network_mode") == "host":
        fields["host_network"] = True
    return TaskOptions(**fields)
