"""Conversion of the text of a file."""

from __future__ import annotations

from collections.abc import Iterable

from plugin.convert import hcl_document, json_document
from plugin.convert.findings import Finding
from plugin.convert.report import SOURCES
from plugin.convert.rules import convert


def converted(name: str, text: str, drivers: Iterable[str] = SOURCES) -> tuple[str, list[Finding]]:
    """Returns the text for this driver, and the findings in the order of the file.

    Args:
        name: name of the file in errors.
        text: a job file or an agent's file in HCL, or a job in Nomad's JSON.
        drivers: the drivers whose tasks are converted.

    Raises:
        DriverError: code INVALID, the text is neither.
    """
    language = json_document if text.lstrip().startswith("{") else hcl_document
    document = language.read(name, text)
    findings = convert(document, drivers)
    return document.edited(), findings
