"""What a look at this machine says: one finding for each thing, with what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from proto.errors import DriverError


class Verdict(StrEnum):
    """FAIL: no task can run. WARN: some jobs cannot. OK: works, or is only told."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at; advice is what to do where it is not well."""

    subject: str
    verdict: Verdict
    text: str
    advice: str = ""


def sentence(error: DriverError) -> str:
    """Returns an error without its advice, which a finding has apart."""
    return f"{error.brief}: {error.details}" if error.details else error.brief


def ok(subject: str, text: str) -> Finding:
    """Returns that all is well."""
    return Finding(subject=subject, verdict=Verdict.OK, text=text)


def warn(subject: str, text: str, advice: str) -> Finding:
    """Returns that some jobs cannot run."""
    return Finding(subject=subject, verdict=Verdict.WARN, text=text, advice=advice)


def fail(subject: str, text: str, advice: str) -> Finding:
    """Returns that no task can run."""
    return Finding(subject=subject, verdict=Verdict.FAIL, text=text, advice=advice)
