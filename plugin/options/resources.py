"""Options of a task's resources, beside Nomad's own `resources` block."""

from __future__ import annotations

from plugin.options import forms, readers
from plugin.options.table import MAP, Option

_MAX_PIDS = 4 * 1024 * 1024  # the kernel's PID_MAX_LIMIT

RESOURCES = (
    Option(
        name="cpu_hard_limit",
        hcl_type="bool",
        default="false",
        read=readers.boolean,
        doc="`true` makes `resources.cpu` a limit; `false`: a weight.",
    ),
    Option(
        name="cpu_cfs_period",
        field="cpu_cfs_period_us",
        hcl_type="number",
        default="100000",
        read=readers.integer(1000, 1_000_000),
        doc="Period of the hard limit, in microseconds.",
    ),
    Option(
        name="pids_limit",
        hcl_type="number",
        default="0",
        read=readers.integer(-1, _MAX_PIDS),
        doc="Most processes and threads at once; 0 is no limit.",
    ),
    Option(
        name="memory_hard_limit",
        field="memory_hard_limit_mb",
        hcl_type="number",
        default="0",
        read=readers.integer(0, 1 << 30),
        doc="Limit of the memory in MB, where greater than `memory_max`; `memory` is then reserved."
        " `memory_max = -1` wins: no limit.",
    ),
    Option(
        name="memory_reservation",
        field="memory_reservation_bytes",
        hcl_type="string",
        read=forms.size_bytes(""),
        doc="Memory that the kernel protects when memory runs short, such as `64M`; at most"
        " `memory`.",
    ),
    Option(
        name="memory_swap",
        field="memory_swap_bytes",
        hcl_type="string",
        read=forms.size_bytes(""),
        doc="Limit of memory and swap together, such as `512M`; default: no swap.",
    ),
    Option(
        name="memory_swappiness",
        hcl_type="number",
        read=readers.integer(0, 100),
        doc="Tendency of the kernel to swap, 0 to 100; only with cgroup v1.",
    ),
    Option(
        name="cpuset_cpus",
        hcl_type="string",
        read=forms.cpu_list,
        doc="Processors of the task, such as `0-2,5`, among those that Nomad grants.",
    ),
    Option(
        name="cpuset_mems",
        hcl_type="string",
        read=forms.cpu_list,
        doc="NUMA nodes of the task's memory, such as `0,1`.",
    ),
    Option(
        name="oom_score_adj",
        hcl_type="number",
        implied="0",
        read=readers.integer(0, 1000),
        doc="0 to 1000; the kernel kills a task with a higher value sooner when memory runs out."
        " The plugin block may have another default.",
    ),
    Option(
        name="shm_size",
        field="shm_size_bytes",
        hcl_type="string",
        read=forms.size_bytes("Error in setting shm_size: "),
        doc='Size of /dev/shm, such as `"128M"`; default: 64M.',
    ),
    Option(
        name="blkio_weight",
        hcl_type="number",
        default="0",
        read=forms.disk_weight,
        doc="Weight of the task's input and output on disks, 10 to 1000, where the disk's scheduler"
        " has weights (bfq, or io.cost).",
    ),
    *(
        Option(
            name=name,
            field="device_rates",
            hcl_type="list(string)",
            read=forms.device_rates(kind),
            doc=doc,
        )
        for name, kind, doc in (
            ("device_read_bps", "ReadBps", 'Most bytes read in a second: `"/dev/sda:10M"`.'),
            ("device_write_bps", "WriteBps", "Most bytes written in a second."),
            ("device_read_iops", "ReadIOPS", 'Most reads in a second: `"/dev/sda:1000"`.'),
            ("device_write_iops", "WriteIOPS", "Most writes in a second."),
        )
    ),
    Option(
        name="storage_opt",
        field="storage_bytes",
        hcl_type=MAP,
        read=forms.storage_bytes,
        doc='`size`: most bytes of the files that the task writes, such as `"10G"`, without its'
        " mounts; only with the snapshotter `overlayfs` on ext4 or xfs with project quotas.",
    ),
    Option(
        name="ulimit",
        field="ulimits",
        hcl_type=MAP,
        read=forms.ulimits,
        doc='Limits by name, as `soft:hard` or one number for both: `nofile = "1024:65536"`.',
    ),
    Option(
        name="file_limit",
        hcl_type="number",
        default="0",
        read=readers.integer(0, 1 << 30),
        doc="Most open files, soft and hard; `nofile` of `ulimit` wins. 0: the driver's.",
    ),
    Option(
        name="sysctl",
        hcl_type=MAP,
        read=forms.sysctls,
        doc="Kernel parameters of the container's own namespaces.",
    ),
)
