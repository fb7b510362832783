"""Frames between the plugin and the puller process: one request, then events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, field
from typing import Any

from containerd.registry.credentials import Credentials
from containerd.registry.hosts import Endpoint
from proto.errors import Code, DriverError
from proto.frames import Frame
from proto.values import dataclass

VERSION = 4
BEGUN: Frame = {"event": "begun"}
"""First event of a pull server: a puller is being forked, and no other process gets the request."""


def ended(status: int) -> Frame:
    """Returns the last event of a pull server: the puller's exit status, negative for a signal."""
    return {"event": "ended", "status": status}


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """An image in a file or a directory. path is relative to root; no part may be a link."""

    root: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequest:
    """One pull.

    Attributes:
        reference: normalised name of the image.
        address: containerd's socket.
        namespace: containerd's namespace.
        snapshotter: name of the snapshotter that unpacks the layers.
        lease: id of an existing lease, which protects all objects of the pull.
        platform: the platform that a job has chosen; empty for the present machine.
        timeout_s: time limit of the whole pull.
        silence_s: time for which a registry or containerd may send nothing.
        labels: labels of the new image record.
        credentials: credentials of registries, each with its host.
        endpoints: hosts in order; empty for the registry alone.
        archive: replaces the registry.
        proxies: proxy variables of the environment; may contain passwords.
        present: digest of the image in containerd; the registry is only asked for its digest then.
        waits: False fails the pull at once when a registry is busy.
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
        """Returns the frame for the puller's stdin."""
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
                "the puller cannot read its request",
                details=str(error),
                code=Code.CORRUPT,
            ) from error


def _endpoint(fields: dict[str, Any]) -> Endpoint:
    """Returns an endpoint with tuples instead of lists: the frame has lists only."""
    whole: dict[str, Any] = dict(fields)
    whole["ca"] = tuple(fields["ca"])
    for name in ("client", "headers"):
        whole[name] = tuple(tuple(pair) for pair in fields[name])
    return Endpoint(**whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Progress of a pull. Bytes are compressed bytes; total_bytes is 0 while unknown."""

    phase: str
    done_bytes: int = 0
    total_bytes: int = 0
    layers_done: int = 0
    layers_total: int = 0
    waiting: str = ""

    def to_wire(self) -> Frame:
        """Returns the frame of the event."""
        return {"event": "progress", **{name: getattr(self, name) for name in self.__slots__}}

    @classmethod
    def from_wire(cls, frame: Mapping[str, Any]) -> Progress:
        """Reads the frame of the event."""
        return cls(**{name: frame[name] for name in cls.__slots__ if name in frame})

    def sentence(self) -> str:
        """Returns the progress as text of a task event."""
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
    """Result of a pull. size is the sum of the compressed blobs, in bytes.

    unchanged is True if the registry has the present image; then nothing was pulled. The plugin
    does not read config_digest. The field stays, because a plugin of an earlier release reads all
    fields, and an upgrade replaces this program under a running plugin.
    """

    name: str
    digest: str
    size: int = 0
    chain_id: str = ""
    config_digest: str = ""
    unchanged: bool = False

    def to_wire(self) -> Frame:
        """Returns the frame of the event."""
        return {"event": "done", **{name: getattr(self, name) for name in self.__slots__}}

    @classmethod
    def from_wire(cls, frame: Mapping[str, Any]) -> PullResult:
        """Reads the frame of the event."""
        return cls(**{name: frame[name] for name in cls.__slots__})
