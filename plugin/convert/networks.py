"""Networks of a group: docker gives each task a bridge network, Nomad gives the group a network."""

from __future__ import annotations

from collections.abc import Sequence

from plugin.convert.document import Body
from plugin.convert.findings import Kind
from plugin.convert.report import Report

_BRIDGES = {"", "bridge", "default"}
"""Modes of a task in docker and podman with a bridge network of its own."""
_GROUP_BRIDGE = {"mode": "bridge"}


def fit_group(report: Report, group: Body, tasks: Sequence[Body]) -> None:
    """Gives the group a bridge network if a task of docker or podman has its own.

    Args:
        report: the conversion.
        group: the group.
        tasks: tasks of docker and podman in the group.
    """
    place = f'group "{group.label}"'
    bridged = [task for task in tasks if _mode(task) in _BRIDGES]
    hosted = [task for task in tasks if _mode(task) == "host"]
    network = next(group.bodies("network"), None)
    mode = network.text("mode") if network else ""
    own = mode not in {"", "host"}
    if hosted and (own or bridged):
        names = ", ".join(f'"{task.label}"' for task in hosted)
        text = (
            f"tasks on the host's network ({names}) stand beside a bridge network, and a group has"
            " one network here: move these tasks into a group of their own"
        )
        report.add(Kind.LOST, place, "network_mode", group.line, text)
        return
    if own or not bridged:
        return
    if network is None:
        report.document.put(group, {"network": _GROUP_BRIDGE})
    else:
        report.document.put(network, _GROUP_BRIDGE)
    text = "becomes a bridge network, as docker and podman give to a task"
    if len(bridged) > 1:
        text += "; the tasks of the group share the network and its ports"
    line = network.line if network else group.line
    report.add(Kind.CHANGED, place, "network", line, text)


def check_task(report: Report, place: str, config: Body, group: Body) -> None:
    """Reports a network of another process that is not here, and ports that are not the group's.

    Args:
        report: the conversion.
        place: name of the task in the report.
        config: the task's config.
        group: the group with the task.
    """
    entry = config.entry("network_mode")
    kind, _, name = config.text("network_mode").partition(":")
    lost = ""
    if kind == "container":
        lost = f"containerd has no container {name!r}: name a task of the group, as task:NAME"
    elif kind == "task" and name not in {task.label for task in group.bodies("task")}:
        lost = f"the group has no task {name!r}"
    if entry and lost:
        report.add(Kind.LOST, place, "network_mode", entry.line, lost)
    ports = config.entry("ports")
    labels = {port.label for network in group.bodies("network") for port in network.bodies("port")}
    wanted = ports.value if ports and isinstance(ports.value, list) else []
    strange = [text for text in map(str, wanted) if text not in labels]
    if ports and strange:
        text = f"the group's network has no port {', '.join(strange)}"
        report.add(Kind.LOST, place, "ports", ports.line, text)


def _mode(task: Body) -> str:
    """Returns the network mode of a task of docker or podman; empty for the default."""
    config = next(task.bodies("config"), None)
    return config.text("network_mode") if config else ""
