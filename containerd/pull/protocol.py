"""What the plugin and the puller process say to each other: one request, then events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from containerd.registry.credentials import Credentials
from containerd.registry.hosts import Endpoint
from proto.errors import Code, DriverError
from proto.frames import Frame

VERSION = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """An image in a file or a directory: path is relative to root, and follows no link."""

    root: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequest:
    """One pull.

    reference is normalised; address is containerd's socket; lease keeps what the pull makes;
    platform is uname's machine, empty for this one; timeout_s is for the whole pull, silence_s for
    how long nothing may come. endpoints are asked in order, none means the registry itself. archive
    replaces the registry. proxies are variables of the environment and may have passwords. present
    is the digest that the image has here. waits is False where a registry that is busy is not to be
    waited for.
    """

    reference: str
    address: str
    namespace: str
    snapshotter: str
    lease: str
    platform: str
    timeout_s: float
    silence_s: float
    labels: Mapping[str, str]
    credentials: tuple[Credentials, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    archive: Archive | None = None
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    present: str = ""
    waits: bool = True

    def to_wire(self) -> Frame:
        """The frame that is written to the puller's stdin."""
        return {
            "v": VERSION,
            **asdict(self),
            "labels": dict(self.labels),
            "proxies": dict(self.proxies),
        }

    @classmethod
    def from_wire(cls, frame: Mapping[str, Any]) -> PullRequest:
        """Reads a request.

        Raises:
            DriverError: code CORRUPT.
        """
        try:
            fields = {name: frame[name] for name in cls.__slots__}
            fields["credentials"] = tuple(Credentials(**one) for one in fields["credentials"])
            fields["endpoints"] = tuple(_endpoint(one) for one in fields["endpoints"])
            archive = fields["archive"]
            fields["archive"] = Archive(**archive) if archive else None
            return cls(**fields)
        except (KeyError, TypeError) as error:
            raise DriverError(
                "the puller got a request that it cannot read",
                details=str(error),
                code=Code.CORRUPT,
            ) from error


def _endpoint(fields: dict[str, Any]) -> Endpoint:
    """The wire has one kind of list; the dataclass is hashable."""
    whole: dict[str, Any] = dict(fields)
    whole["ca"] = tuple(fields["ca"])
    for name in ("client", "headers"):
        whole[name] = tuple(tuple(pair) for pair in fields[name])
    return Endpoint(**whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a pull is; bytes are compressed ones, total 0 while it is not known."""

    phase: str
    done_bytes: int = 0
    total_bytes: int = 0
    layers_done: int = 0
    layers_total: int = 0
    waiting: str = ""

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
        if self.waiting:
            text += f", waiting for {self.waiting}"
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class PullResult:
    """What was pulled; size is the sum of the compressed blobs, in bytes.

    unchanged: nothing was, the registry has what is here.
    """

    name: str
    digest: str
    size: int = 0
    chain_id: str = ""
    config_digest: str = ""
    unchanged: bool = False

    def to_wire(self) -> Frame:
        """The event."""
        return {"event": "done", **{name: getattr(self, name) for name in self.__slots__}}

    @classmethod
    def from_wire(cls, frame: Mapping[str, Any]) -> PullResult:
        """Reads the event."""
        return cls(**{name: frame[name] for name in cls.__slots__})
