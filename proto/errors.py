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
    def from_wire(cls, fields: Mapping[str, object]) -> DriverError:
        """The error that `to_wire` described. Unknown codes of a newer peer become INTERNAL."""
        code = str(fields.get("code", ""))
        return cls(
            cut(str(fields.get("brief", "unnamed failure"))),
            details=cut(str(fields.get("details", ""))),
            resolution=cut(str(fields.get("resolution", ""))),
            recoverable=fields.get("recoverable") is True,
            code=Code(code) if code in set(Code) else Code.INTERNAL,
        )


def cut(text: str, limit: int = MAX_TEXT) -> str:
    """The beginning of a text: what a peer sends is neither sent on nor logged whole."""
    return text if len(text) <= limit else f"{text[:limit]}…"
