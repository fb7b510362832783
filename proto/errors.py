"""The error class of the project, and the form of an error that crosses a process border."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

MAX_TEXT = 4096
"""Largest number of characters of a text that crosses a process border."""


class Code(StrEnum):
    """Stable codes that name the kind of a failure for programs. The sentences are for people."""

    INVALID = "invalid"  # bad input: the job, the driver config or a request must change
    NOT_FOUND = "not-found"
    ALREADY_EXISTS = "already-exists"
    DENIED = "denied"  # missing credentials, or an option that the operator has not allowed
    UNAVAILABLE = "unavailable"  # containerd, registry, launcher or shim does not answer
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    PRECONDITION = "precondition"  # the object is in the wrong state for the request
    EXHAUSTED = "exhausted"  # disk, descriptors, memory
    CORRUPT = "corrupt"  # a wrong digest, a malformed frame or record
    UNSUPPORTED = "unsupported"
    INTERNAL = "internal"  # a defect of the driver


class DriverError(Exception):
    """A failure, described for people, with advice for the reader.

    Args:
        brief: the failed action and its place, in one sentence; begins with the text for which
            operators search.
        details: text of the failing part, without secrets.
        resolution: advice for the reader.
        recoverable: True if the same action may work later; Nomad then applies the restart
            policy instead of failing the task for good.
        code: stable kind of the failure.
    """

    def __init__(
        self,
        brief: str,
        *,
        details: str = "",
        resolution: str = "",
        recoverable: bool = False,
        code: Code = Code.INTERNAL,
    ) -> None:
        super().__init__(brief)
        self.brief = brief
        self.details = details
        self.resolution = resolution
        self.recoverable = recoverable
        self.code = code

    def __str__(self) -> str:
        text = self.brief
        if self.details:
            text = f"{text}: {self.details}"
        if self.resolution:
            text = f"{text} ({self.resolution})"
        return text

    def to_wire(self) -> dict[str, object]:
        """Returns the form for msgpack: a map of str to str or bool."""
        return {
            "brief": cut(self.brief),
            "details": cut(self.details),
            "resolution": cut(self.resolution),
            "recoverable": self.recoverable,
            "code": self.code.value,
        }

    @classmethod
    def from_wire(cls, fields: object) -> DriverError:
        """Returns the error in a map that `to_wire` built.

        An unknown code of a newer peer becomes INTERNAL. A value other than a map becomes an
        unnamed failure: a peer sent the value, and an answer without a text is still a failure.
        """
        known: Mapping[str, object] = fields if isinstance(fields, dict) else {}
        code = str(known.get("code", ""))
        return cls(
            cut(str(known.get("brief", "unnamed failure"))),
            details=cut(str(known.get("details", ""))),
            resolution=cut(str(known.get("resolution", ""))),
            recoverable=known.get("recoverable") is True,
            code=Code(code) if code in set(Code) else Code.INTERNAL,
        )

    def replaced(
        self,
        *,
        brief: str | None = None,
        details: str | None = None,
        resolution: str | None = None,
        recoverable: bool | None = None,
        code: Code | None = None,
    ) -> DriverError:
        """Returns a copy of the error with some fields replaced; None keeps a field."""
        return DriverError(
            self.brief if brief is None else brief,
            details=self.details if details is None else details,
            resolution=self.resolution if resolution is None else resolution,
            recoverable=self.recoverable if recoverable is None else recoverable,
            code=self.code if code is None else code,
        )


def start_refused(
    text: str,
    resolution: str = "",
    *,
    details: str = "",
    recoverable: bool = False,
    code: Code = Code.INVALID,
) -> DriverError:
    """Builds the error of a start that the driver refuses or cannot complete.

    Args:
        text: the fault with its value. The function puts the Go driver's prefix in front: operators
            search for the prefix.
        resolution: advice for the reader.
        details: text of the failing part, without secrets.
        recoverable: True if the same start may work later.
        code: stable kind of the failure; INVALID, because most refusals are about the job.
    """
    return DriverError(
        f"Error in creating container: {text}",
        details=details,
        resolution=resolution,
        recoverable=recoverable,
        code=code,
    )


def cut(text: str, limit: int = MAX_TEXT) -> str:
    """Returns the beginning of a text, because long texts of a peer are not sent on or logged."""
    return text if len(text) <= limit else f"{text[:limit]}…"
