"""A conversion under way: the document, the drivers to convert, and the findings so far."""

from __future__ import annotations

from dataclasses import field

from plugin.convert.document import Document
from plugin.convert.findings import Finding, Kind
from proto.values import dataclass

NAME = "containerd-driver"
"""This driver, and the Go driver with the same name."""
SOURCES = ("docker", "podman", NAME)


@dataclass(frozen=True, slots=True)
class Report:
    """The parts of a conversion that all rules share."""

    document: Document
    drivers: tuple[str, ...]
    findings: list[Finding] = field(default_factory=list)

    def add(self, kind: Kind, place: str, option: str, line: int, text: str) -> None:
        """Adds a finding; see `Finding`."""
        self.findings.append(Finding(kind=kind, place=place, option=option, line=line, text=text))
