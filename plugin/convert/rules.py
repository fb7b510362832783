"""Rules of a conversion: edits of the jobs and agent files of Nomad's docker and podman drivers.

An option that this driver does not take stays in the file: a job that does something else without
notice would be worse than a job that the driver refuses.
"""

from __future__ import annotations

from collections.abc import Iterable

from plugin import options
from plugin.convert import connect, networks
from plugin.convert.document import Body, Document, Entry, Unknown
from plugin.convert.findings import Finding, Kind
from plugin.convert.option_check import check
from plugin.convert.report import NAME, SOURCES, Report

_PLUGINS = {"docker": "docker", "nomad-driver-podman": "podman", NAME: NAME}
"""Drivers by the label of their block in an agent's file."""
_CHECKS = ("constraint", "affinity", "spread")


def convert(document: Document, drivers: Iterable[str] = SOURCES) -> list[Finding]:
    """Edits a document for this driver, and returns the findings in the order of the file.

    Args:
        document: the file.
        drivers: the drivers whose tasks are converted.
    """
    report = Report(document, tuple(drivers))
    _plugins(report)
    for job in document.root.bodies("job"):
        _attributes(report, f'job "{job.label}"', job)
        for group in job.bodies("group"):
            _group(report, group)
        # Nomad makes a group of a task that stands directly in the job.
        for task in job.bodies("task"):
            _task(report, task, job)
    return sorted(report.findings, key=lambda finding: finding.line)


def _plugins(report: Report) -> None:
    """Converts the plugin blocks of an agent's file, of which the agent uses one per driver."""
    found = 0
    for block in report.document.root.bodies("plugin"):
        convertible = _PLUGINS.get(block.label) in report.drivers
        if convertible:
            _plugin(report, block)
        if convertible or block.label == NAME:
            found += 1
            if found > 1:
                text = "an agent uses one block of a driver: write all options into the first block"
                report.add(Kind.LOST, f'plugin "{block.label}"', "", block.line, text)


def _plugin(report: Report, block: Body) -> None:
    place = f'plugin "{block.label}"'
    if block.label != NAME:
        report.document.replace(block.label_span, f'"{NAME}"')
        report.add(Kind.CHANGED, place, "", block.line, f'becomes plugin "{NAME}"')
    for config in block.bodies("config"):
        _options(report, place, config, options.DRIVER_OPTIONS)


def _group(report: Report, group: Body) -> None:
    place = f'group "{group.label}"'
    _attributes(report, place, group)
    tasks = [*group.bodies("task")]
    moved = [task for task in tasks if task.text("driver") in {*report.drivers} - {NAME}]
    networks.fit_group(report, group, moved)
    for task in tasks:
        _task(report, task, group)
    services = [*group.bodies("service")]
    for task in tasks:
        services += task.bodies("service")
    for service in services:
        for block in service.bodies("connect"):
            connect.give_sidecar(report, group, service, block)
            for sidecar in block.bodies("sidecar_task"):
                _sidecar(report, service, sidecar)


def _task(report: Report, task: Body, group: Body) -> None:
    """Converts a task of the drivers to convert."""
    place = f'task "{task.label}"'
    driver = task.entry("driver")
    if driver is None or driver.value not in report.drivers:
        if driver and isinstance(driver.value, Unknown):
            text = f"{driver.value} is an expression: the task is left as it is"
            report.add(Kind.NOTE, place, "driver", driver.line, text)
        return
    _attributes(report, place, task)
    _driver(report, place, driver)
    for config in task.bodies("config"):
        networks.check_task(report, place, config, group)
        _options(report, place, config, options.TASK_OPTIONS)


def _driver(report: Report, place: str, driver: Entry) -> None:
    if driver.value == NAME:
        return
    report.document.replace(driver.value_span, f'"{NAME}"')
    report.add(Kind.CHANGED, place, "driver", driver.line, f'"{driver.value}" becomes "{NAME}"')


def _sidecar(report: Report, service: Body, sidecar: Body) -> None:
    place = f'sidecar_task of service "{service.label or service.value("name") or ""}"'
    driver = sidecar.entry("driver")
    if driver is None or driver.value in report.drivers:
        if driver is not None:
            _driver(report, place, driver)
        for config in sidecar.bodies("config"):
            _options(report, place, config, options.TASK_OPTIONS)


def _options(report: Report, place: str, config: Body, table: tuple[options.Option, ...]) -> None:
    """Reports the options that this driver ignores or does not take."""
    for name, value in config.plain().items():
        entry = config.entry(name)
        line = entry.line if entry else config.line
        problem, notes = check(table, name, value)
        if problem:
            report.add(Kind.LOST, place, name, line, problem)
        for note in notes:
            report.add(Kind.NOTE, place, name, line, note)


def _attributes(report: Report, place: str, body: Body) -> None:
    """Reports constraints on attributes of another driver."""
    for kind in _CHECKS:
        for block in body.bodies(kind):
            entry = block.entry("attribute")
            source = report.document.source(entry.value_span) if entry else ""
            name = next((d for d in SOURCES if f"driver.{d}" in source), "")
            if entry and name and name != NAME:
                text = (
                    f"compares an attribute of {name}: the attributes of this driver begin with"
                    f' "driver.{NAME}", see `nomad node status -verbose`'
                )
                report.add(Kind.LOST, place, kind, entry.line, text)
