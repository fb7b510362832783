"""Check of SELinux: are tasks confined, as the operator wants?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from actors.health.findings import Finding, fail, ok, sentence, warn
from actors.model.node import Node
from containerd.security import selinux
from containerd.security.selinux import Contexts
from proto.errors import DriverError


def check(node: Node, root: Path) -> Iterator[Finding]:
    """Yields a finding on a node with SELinux, and on a node that should have SELinux. Blocks.

    Args:
        node: the node and the driver's settings.
        root: root of the machine's files; tests use another directory.
    """
    wanted, enabled = node.settings.selinux_enabled, selinux.is_enabled(root)
    if wanted and not enabled:
        text = (
            "selinux_enabled is true, and the kernel has no SELinux policy: tasks have no context"
        )
        yield warn("selinux", text, "enable SELinux at boot, or remove selinux_enabled")
    elif wanted:
        try:
            contexts = selinux.of_containers(root)
            process = contexts["process"]
            if unknown := selinux.unknown(Contexts(process=process, files=contexts["file"]), root):
                raise selinux.no_contexts(f"the SELinux policy does not know {unknown}")
        except DriverError as error:
            yield fail("selinux", f"{sentence(error)}: no task starts", error.resolution)
        else:
            yield ok("selinux", f"tasks run as {process} with categories of their allocation")
    elif enabled:
        text = (
            "the kernel has an SELinux policy, and tasks have the context of containerd's processes"
        )
        yield warn("selinux", text, "set selinux_enabled = true in the plugin block")
