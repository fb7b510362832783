"""The one error class of the project and the form in which it crosses process borders."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

MAX_TEXT = 4096
"""Characters of a text that crosses the border of a process."""


class Code(StrEnum):
    """Stable codes: what kind of failure it is, for programs. Sentences are for people."""

    INVALID = "invalid"  # bad input: the job, the driver config or a request must change
    NOT_FOUND = "not-found"
    ALREADY_EXISTS = "already-exists"
    DENIED = "denied"  # credentials or a gate of the operator
    UNAVAILABLE = "unavailable"  # a peer is away: containerd, registry, launcher, shim
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    PRECONDITION = "precondition"  # the thing is in the wrong state for the request
    EXHAUSTED = "exhausted"  # disk, descriptors, memory
    CORRUPT = "corrupt"  # a digest, a frame or a record does not hold
    UNSUPPORTED = "unsupported"
    INTERNAL = "internal"  # a defect of ours


class DriverError(Exception):
    """A failure in words that tell what to do.

    Args:
        brief: what failed and where, one sentence; texts that users grep for start it.
        details: what the failing part said, without secrets.
        resolution: what the reader can do about it.
        recoverable: True when trying the same again may work; Nomad then applies the
            restart policy instead of failing the task for good.
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
        """The msgpack-able form: a map of str to str or bool."""
        return {
            "brief": cut(self.brief),
            "details": cut(self.details),
            "resolution": cut(self.resolution),
            "recoverable": self.recoverable,
            "code": self.code.value,
        }

    @classmethod
    def from_wire(cls, fields: object) -> DriverError:
        """Returns the error that `to_wire` described.

        Unknown codes of a newer peer become INTERNAL. Fields that are no map become an unnamed
        failure: a peer sent them, and an answer without words is still a failure.
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
        """Returns a copy of this error with some of its fields replaced; None keeps a field."""
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
    """Builds the error of a start that the driver refuses or cannot make.

    Args:
        text: what is wrong, with its value; the Go driver's prefix, for which operators search, is
            put before it.
        resolution: what the reader can change.
        details: what the failing part said, without secrets.
        recoverable: True when the same start may work later.
        code: stable kind of the failure; INVALID, as most refusals are about the job.
    """
    return DriverError(
        f"Error in creating container: {text}",
        details=details,
        resolution=resolution,
        recoverable=recoverable,
        code=code,
    )


def cut(text: str, limit: int = MAX_TEXT) -> str:
    """The beginning of a text: what a peer sends is neither sent on nor logged whole."""
    return text if len(text) <= limit else f"{text[:limit]}…"
