"""Judges runtime and containerd by their known holes, for operators who allow none."""

from __future__ import annotations

from actors.processes import runtime_versions
from containerd import runtimes
from containerd.runtimes import Runtime
from containerd.security import known_holes
from proto.errors import Code, DriverError, start_refused


def of_node(runtime: Runtime, containerd_version: str) -> str:
    """Returns the reason why a task could become root on the node; empty for no known hole. Blocks.

    Args:
        runtime: the runtime of the task.
        containerd_version: containerd's own version text.
    """
    path = runtimes.program(runtime.binary) if runtime.binary else None
    return "; ".join(
        text
        for text in (
            known_holes.refusal(runtime.binary, runtime_versions.version(path)) if path else "",
            known_holes.refusal("containerd", containerd_version),
        )
        if text
    )


def refused(reason: str) -> DriverError:
    """Builds the error of a start on a node with a known hole."""
    return start_refused(
        f"this node allows no known holes: {reason}",
        "the operator repairs the node, or sets allow_known_holes = true in the plugin block",
        code=Code.DENIED,
    )
