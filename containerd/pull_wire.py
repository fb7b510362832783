"""What the plugin and the puller process say to each other: one request, then events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proto.errors import Code, DriverError
from proto.frames import Frame

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """User and password, and the registry that they are for; empty: the image's own."""

    username: str
    password: str = field(repr=False)
    server_address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequest:
    """One pull.

    reference is normalised; address is containerd's socket; lease keeps what the pull makes;
    platform is uname's machine, empty for this one; timeout_s is for the whole pull.
    """

    reference: str
    address: str
    namespace: str
    snapshotter: str
    lease: str
    platform: str
    auth: Credentials | None
    timeout_s: float
    labels: Mapping[str, str]

    def to_wire(self) -> Frame:
        """The frame that is written to the puller's stdin."""
        fields: Frame = {name: getattr(self, name) for name in self.__slots__}
        fields["labels"] = dict(self.labels)
        fields["auth"] = self.auth and {
            name: getattr(self.auth, name) for name in self.auth.__slots__
        }
        return {"v": VERSION, **fields}

    @classmethod
    def from_wire(cls, frame: Mapping[str, Any]) -> PullRequest:
        """Reads a request.

        Raises:
            DriverError: code CORRUPT.
        """
        try:
            fields = {name: frame[name] for name in cls.__slots__}
            auth = fields["auth"]
            fields["auth"] = Credentials(**auth) if auth else None
            return cls(**fields)
        except (KeyError, TypeError) as error:
            raise DriverError(
                "the puller got a request that it cannot read",
                details=str(error),
                code=Code.CORRUPT,
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a pull is; bytes are compressed ones, total 0 while it is not known."""

    phase: str
    done_bytes: int = 0
    total_bytes: int = 0
    layers_done: int = 0
    layers_total: int = 0

    def to_wire(self) -> Frame:
        """The event."""
        return {"event": "progress", **{name: getattr(self, name) for name in self.__slots__}}

    @classmethod
    def from_wire(cls, frame: Mapping[str, Any]) -> Progress:
        """Reads the event."""
        return cls(**{name: frame[name] for name in cls.__slots__ if name in frame})

    def sentence(self) -> str:
        """For a person."""
        text = f"{self.phase.capitalize()} image"
        if self.total_bytes:
            text += f": {self.done_bytes / 1e6:.1f} of {self.total_bytes / 1e6:.1f} MB"
        if self.layers_total:
            text += f", {self.layers_done} of {self.layers_total} layers"
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class PullResult:
    """What was pulled; size is the sum of the compressed blobs, in bytes."""

    digest: str
    size: int
    chain_id: str
    config_digest: str

    def to_wire(self) -> Frame:
        """The event."""
        return {"event": "done", **{name: getattr(self, name) for name in self.__slots__}}

    @classmethod
    def from_wire(cls, frame: Mapping[str, Any]) -> PullResult:
        """Reads the event."""
        return cls(**{name: frame[name] for name in cls.__slots__})
