"""Networks of a group: docker gives each task a bridge network, Nomad gives the group a network."""

from __future__ import annotations

from collections.abc import Sequence

from plugin.convert.document import Body, Document
from plugin.convert.findings import Kind
from plugin.convert.report import Report

_BRIDGES = {"", "bridge", "default"}
"""Modes of a task in docker and podman with a bridge network of its own."""
_GROUP_BRIDGE = {"mode": "bridge"}


def fit_group(report: Report, group: Body, tasks: Sequence[Body]) -> str:
    """Gives the group a bridge network if a task of docker or podman has its own.

    Args:
        report: the conversion.
        group: the group.
        tasks: tasks of docker and podman in the group.

    Returns:
        The mode of the group's network afterwards; empty for none.
    """
    place = f'group "{group.label}"'
    bridged = [task for task in tasks if _shares(_mode(task), group)]
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
        return mode
    if own or not bridged:
        return mode
    if network is None:
        report.document.put(group, {"network": _GROUP_BRIDGE})
    else:
        report.document.put(network, _GROUP_BRIDGE)
    text = "becomes a bridge network, as docker and podman give to a task"
    if len(bridged) > 1:
        text += "; the tasks of the group share the network and its ports"
    line = network.line if network else group.line
    report.add(Kind.CHANGED, place, "network", line, text)
    return "bridge"


def fit_task(report: Report, place: str, config: Body, group: Body, mode: str) -> frozenset[str]:
    """Replaces the options of a task's network by the network of its group.

    Args:
        report: the conversion.
        place: name of the task in the report.
        config: the task's config.
        group: the group, with the labels of its ports.
        mode: mode of the group's network.

    Returns:
        The names of the options that are replaced.
    """
    gone = set()
    mode_of_task = config.entry("network_mode")
    if mode_of_task and (lost := _no_such_process(mode_of_task.value, group)):
        report.add(Kind.LOST, place, "network_mode", mode_of_task.line, lost)
    for name, text in (
        ("network_mode", _fit_mode(report.document, config, group, mode)),
        ("ports", _fit_ports(report.document, config, group, mode)),
    ):
        entry = config.entry(name)
        if entry and text:
            report.add(Kind.CHANGED, place, name, entry.line, text)
            gone.add(name)
    return frozenset(gone)


def _fit_mode(document: Document, config: Body, group: Body, mode: str) -> str:
    entry = config.entry("network_mode")
    if entry is None or not isinstance(entry.value, str):
        return ""
    if entry.value == "host":
        document.rename(entry, "host_network")
        document.replace(entry.value_span, "true")
        return "becomes host_network = true"
    bridge = mode not in {"", "host", "none"}
    if bridge and _shares(entry.value, group):
        document.remove(entry)
        return "is removed: the tasks of the group share the group's network"
    if not bridge and entry.value == "none":
        document.remove(entry)
        return "is removed: a task in a group without a network has loopback alone"
    return ""


def _no_such_process(mode: Any, group: Body) -> str:
    """Returns the reason why the process whose network a task shares does not exist here."""
    kind, _, name = str(mode).partition(":")
    if kind == "container":
        return f"containerd has no container {name!r}: name a task of the group, as task:NAME"
    if kind == "task" and name not in {task.label for task in group.bodies("task")}:
        return f"the group has no task {name!r}"
    return ""


def _fit_ports(document: Document, config: Body, group: Body, mode: str) -> str:
    entry = config.entry("ports")
    if entry is None:
        return ""
    labels = {port.label for network in group.bodies("network") for port in network.bodies("port")}
    wanted = entry.value
    known = isinstance(wanted, list) and all(label in labels for label in map(str, wanted))
    on_host = config.value("network_mode") == "host"
    if not known or not (on_host or mode == "bridge" or mode.startswith("cni/")):
        return ""
    document.remove(entry)
    where = "the task listens on the host's ports" if on_host else "Nomad publishes all ports"
    return f"is removed: {where} of the group"


def _shares(mode: str, group: Body) -> bool:
    """Returns True for a task's mode that the bridge network of a group replaces."""
    names = {task.label for task in group.bodies("task")}
    return mode in _BRIDGES or mode.removeprefix("task:") in names


def _mode(task: Body) -> str:
    """Returns the network mode of a task of docker or podman; empty for the default."""
    config = next(task.bodies("config"), None)
    return config.text("network_mode") if config else ""
