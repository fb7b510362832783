"""Where a pull takes an image's blobs from: a registry with its mirrors, or an archive."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from containerd.registry import Registry
from containerd.registry_auth import credentials_for
from containerd.registry_hosts import endpoint_of
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from containerd.pull_wire import Credentials
    from containerd.reference import Reference
    from containerd.registry_hosts import Endpoint

T = TypeVar("T")
# What another place, or the same one a moment later, may do better.
_WORTH_A_TRY = frozenset({Code.CORRUPT, Code.UNAVAILABLE})
# Who was silent once is silent again.
_ELSEWHERE = _WORTH_A_TRY | {Code.DENIED, Code.NOT_FOUND, Code.TIMEOUT}


class ImageSource(Protocol):
    """Manifests whole and blobs as streams. Threads may share it."""

    def manifest(self, selector: str) -> tuple[bytes, str]:
        """A manifest or index by tag or digest, verified, and its media type."""
        ...

    def tries(self, digest: str, size: int) -> Sequence[Callable[[], Iterator[bytes]]]:
        """Ways to get a blob, to be taken in turn; what comes is not verified."""
        ...

    def again(self, error: DriverError) -> bool:
        """Whether the next way is worth taking after this failure."""
        ...

    def failure(self, errors: Sequence[DriverError]) -> DriverError:
        """What all ways' failures, in order, come to."""
        ...


class RegistrySource:
    """A registry, and before it its mirrors in the operator's order.

    Args:
        reference: the image.
        endpoints: where to ask; empty stands for the registry itself.
        credentials: each goes only to the host that it is for.
        deadline: `time.monotonic()` after which every request fails.
        silence_s: how long each may send nothing.
    """

    def __init__(
        self,
        reference: Reference,
        endpoints: Sequence[Endpoint],
        credentials: Sequence[Credentials],
        deadline: float,
        silence_s: float,
    ) -> None:
        chosen = endpoints or (endpoint_of(reference.registry),)
        self._name = str(reference)
        self._places = [
            Registry(reference, _for(endpoint, credentials), deadline, silence_s, endpoint)
            for endpoint in chosen
        ]

    def manifest(self, selector: str) -> tuple[bytes, str]:
        """See `ImageSource`; by digest a place that cannot resolve names will do.

        Raises:
            DriverError: no place has it; each is named.
        """
        by_digest = ":" in selector
        errors: list[DriverError] = []
        for place in self._places:
            if not (place.endpoint.pull if by_digest else place.endpoint.resolve):
                continue
            try:
                return place.manifest(selector)
            except DriverError as error:
                errors.append(error)
                if error.code not in _ELSEWHERE:
                    break
        raise self.failure(errors)

    def tries(self, digest: str, size: int) -> Sequence[Callable[[], Iterator[bytes]]]:
        """See `ImageSource`; a registry without mirrors is asked twice."""
        places = [place for place in self._places if place.endpoint.pull]
        if len(places) == 1:
            places *= 2

        def way(place: Registry) -> Callable[[], Iterator[bytes]]:
            return lambda: place.blob(digest, size)

        return [way(place) for place in places]

    def again(self, error: DriverError) -> bool:
        """See `ImageSource`."""
        return error.code in (_ELSEWHERE if len(self._places) > 1 else _WORTH_A_TRY)

    def failure(self, errors: Sequence[DriverError]) -> DriverError:
        """See `ImageSource`. The last place is the registry itself, so its word counts."""
        if not errors:
            return DriverError(
                f"{self._name} cannot be read from anywhere",
                details="no host of its registry hosts file has the capability for it",
                resolution='add "pull" and "resolve" to the capabilities of a host',
                code=Code.INVALID,
            )
        last = errors[-1]
        told = dict.fromkeys(f"{error.brief}: {error.details}" for error in errors)
        if len(told) == 1:
            return last
        return DriverError(
            last.brief,
            details="; ".join(told)[:2000],
            resolution=last.resolution,
            recoverable=last.recoverable,
            code=last.code,
        )


def _for(endpoint: Endpoint, credentials: Sequence[Credentials]) -> Credentials | None:
    found = (credentials_for(endpoint.host, one) for one in credentials if one.server_address)
    return next((one for one in found if one is not None), None)
