"""Findings of the doctor about this machine. Each finding has a subject and advice."""

from __future__ import annotations

from enum import StrEnum

from proto.errors import DriverError
from proto.values import dataclass


class Verdict(StrEnum):
    """FAIL: no task can run. WARN: some jobs cannot run. OK: works, or is for information."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Result of a check. `advice` says how to repair a WARN or a FAIL."""

    subject: str
    verdict: Verdict
    text: str
    advice: str = ""


def sentence(error: DriverError) -> str:
    """Returns an error's text without the advice, which a finding has in a field of its own."""
    return f"{error.brief}: {error.details}" if error.details else error.brief


def ok(subject: str, text: str) -> Finding:
    """Builds a finding without a problem."""
    return Finding(subject=subject, verdict=Verdict.OK, text=text)


def warn(subject: str, text: str, advice: str) -> Finding:
    """Builds a finding about a problem of some jobs."""
    return Finding(subject=subject, verdict=Verdict.WARN, text=text, advice=advice)


def fail(subject: str, text: str, advice: str) -> Finding:
    """Builds a finding about a problem of all tasks."""
    return Finding(subject=subject, verdict=Verdict.FAIL, text=text, advice=advice)
