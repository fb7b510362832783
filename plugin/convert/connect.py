"""Proxies of Consul Connect: Nomad gives these to docker unless the job names another driver."""

from __future__ import annotations

from typing import Any

from plugin.convert.document import Body
from plugin.convert.findings import Kind
from plugin.convert.report import NAME, Report

# Nomad's own arguments, in nomad/job_endpoint_hook_connect.go.
_ARGS = [
    *("-c", "${NOMAD_SECRETS_DIR}/envoy_bootstrap.json", "-l", "${meta.connect.log_level}"),
    *("--concurrency", "${meta.connect.proxy_concurrency}", "--disable-hot-restart"),
]
_IMAGES = {
    "sidecar_service": "${meta.connect.sidecar_image}",
    "gateway": "${meta.connect.gateway_image}",
}


def give_sidecar(report: Report, group: Body, service: Body, connect: Body) -> None:
    """Gives a `connect` block this driver, with the image and the arguments of Nomad.

    Nomad uses its own image and arguments only for the driver that Nomad has chosen.

    Args:
        report: the conversion.
        group: the group of the service.
        service: the service.
        connect: its `connect` block.
    """
    kind = next((kind for kind in _IMAGES if connect.entry(kind)), "")
    sidecar = next(connect.bodies("sidecar_task"), None)
    driver = (sidecar.text("driver") if sidecar else "") or _chosen(group)
    if not kind or driver not in report.drivers or driver == NAME:
        return
    config: dict[str, Any] = {"image": _IMAGES[kind], "args": _ARGS}
    network = next(group.bodies("network"), None)
    if kind == "gateway" and network and network.text("mode") == "host":
        config["network_mode"] = "host"
    if sidecar is None:
        task = {"driver": NAME, "config": config}
        report.document.put(connect, {"sidecar_task": task})
    else:
        _complete(report, sidecar, config)
    place = f'service "{service.value("name") or service.label}"'
    text = "names this driver, with the image and the arguments that Nomad gives to docker"
    report.add(Kind.CHANGED, place, "sidecar_task", connect.line, text)


def _complete(report: Report, sidecar: Body, config: dict[str, Any]) -> None:
    """Adds the options that Nomad would add for docker; a job's own options win."""
    own = next(sidecar.bodies("config"), None)
    added: dict[str, Any] = {} if sidecar.value("driver") else {"driver": NAME}
    if own is None:
        added["config"] = config
    else:
        missing = {name: item for name, item in config.items() if own.entry(name) is None}
        if missing:
            report.document.put(own, missing)
    report.document.put(sidecar, added)


def _chosen(group: Body) -> str:
    """Returns the driver that Nomad chooses for the proxies of a group."""
    drivers = {task.text("driver") for task in group.bodies("task")}
    return "podman" if "podman" in drivers and "docker" not in drivers else "docker"
