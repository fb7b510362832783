"""Keys of a job file: obeyed by the dev host, left to a Nomad agent, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from plugin.texts import did_you_mean
from proto.values import dataclass


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys of one kind of block.

    Attributes:
        used: the dev host obeys the key.
        ignored: only a Nomad agent obeys the key; a note names the key.
        silent: the key has no effect on a single machine.
        refused: the task would do something else without the key; with the reason.
    """

    used: frozenset[str]
    ignored: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict)

    def sift(
        self, where: str, block: Mapping[str, Any], problems: list[str], ignored: set[str]
    ) -> None:
        """Adds refused and unknown keys to `problems`, and ignored keys to `ignored`."""
        for key in block:
            if key in self.used or key in self.silent:
                continue
            if key in self.ignored:
                ignored.add(key)
            elif key in self.refused:
                problems.append(f"{where}: {key} {self.refused[key]}")
            else:
                known = [*self.used, *self.ignored, *self.silent, *self.refused]
                problems.append(f'{where}: no such key "{key}"{did_you_mean(key, known)}')


_NEEDS_NOMAD = "needs a Nomad agent"

FILE = Keys(used=_words("job"))

JOB = Keys(
    used=_words("group task datacenters region namespace id name meta"),
    ignored=_words(
        "constraint affinity spread update migrate reschedule periodic multiregion consul"
    ),
    silent=_words("type priority all_at_once node_pool ui version_tag"),
    refused={
        "parameterized": "needs a Nomad server, which dispatches the job",
        "vault": _NEEDS_NOMAD,
    },
)

GROUP = Keys(
    used=_words("count task network meta volume"),
    ignored=_words(
        "restart reschedule update migrate service constraint affinity spread ephemeral_disk"
        " scaling disconnect shutdown_delay consul"
    ),
    silent=_words("stop_after_client_disconnect max_client_disconnect prevent_reschedule_on_lost"),
    refused={"vault": _NEEDS_NOMAD},
)

TASK = Keys(
    used=_words(
        "driver config env meta user resources kill_timeout kill_signal template volume_mount"
    ),
    ignored=_words(
        "service constraint affinity restart logs identity shutdown_delay scaling leader consul"
        " action schedule"
    ),
    refused=dict.fromkeys(
        _words("artifact vault dispatch_payload csi_plugin lifecycle secret kind"),
        _NEEDS_NOMAD,
    ),
)

RESOURCES = Keys(
    used=_words("cpu memory memory_max"),
    silent=_words("disk iops network secrets"),
    refused={
        "cores": "are reserved by a Nomad agent; use cpu",
        "device": "needs a Nomad agent with a device plugin",
        "numa": _NEEDS_NOMAD,
    },
)

NETWORK = Keys(
    used=_words("mode port dns"),
    silent=_words("mbits"),
    refused={
        "hostname": "is for drivers that create networks; set hostname in the task's config",
        "cni": _NEEDS_NOMAD,
    },
)

PORT = Keys(
    used=_words("static to"),
    silent=_words("ignore_collision"),
    refused={"host_network": "needs a Nomad agent with host networks; see --host-ip"},
)

DNS = Keys(used=_words("servers searches options"))

VOLUME = Keys(
    used=_words("type source read_only per_alloc"),
    # These keys are about volumes of other types.
    silent=_words("access_mode attachment_mode sticky"),
    refused={"mount_options": _NEEDS_NOMAD},
)

VOLUME_MOUNT = Keys(
    used=_words("volume destination read_only propagation_mode selinux_label"),
)

TEMPLATE = Keys(
    used=_words("data destination perms"),
    silent=_words(
        "change_mode change_signal change_script splay wait once error_on_missing_key vault_grace"
    ),
    refused={
        "source": "needs a Nomad agent; put the text into data",
        "env": "needs a Nomad agent; use the env block",
        **dict.fromkeys(("left_delimiter", "right_delimiter", "uid", "gid"), _NEEDS_NOMAD),
    },
)
