"""Where a pull takes an image's blobs from: a registry with its mirrors, or an archive."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from containerd.registry.client import Registry
from containerd.registry.credentials import credentials_for, namespace_of
from containerd.registry.hosts import endpoint_of
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from containerd.reference import Reference
    from containerd.registry.credentials import Credentials
    from containerd.registry.hosts import Endpoint
    from containerd.registry.http_request import Access
    from containerd.registry.retries import Patience

T = TypeVar("T")

# What another place may do better.
_ELSEWHERE = frozenset({Code.CORRUPT, Code.UNAVAILABLE, Code.DENIED, Code.NOT_FOUND, Code.TIMEOUT})
# So many bytes are worth the next request at once; fewer wait for their turn.
_PROGRESS_BYTES = 16 * 1024


class ImageSource(Protocol):
    """Manifests whole and blobs as streams. Threads may share it."""

    def manifest(self, selector: str) -> tuple[bytes, str]:
        """A manifest or index by tag or digest, verified, and what the source calls its type."""
        ...

    def tries(self, digest: str, size: int) -> Sequence[Callable[[], Iterator[bytes]]]:
        """Ways to get a blob, to be taken in turn; what comes is not verified."""
        ...

    def again(self, error: DriverError) -> bool:
        """Returns whether the next way is worth taking after this failure."""
        ...

    def failure(self, errors: Sequence[DriverError]) -> DriverError:
        """Returns what all ways' failures, in order, come to."""
        ...


class RegistrySource:
    """A registry, and before it its mirrors in the operator's order.

    Each is asked in its turn; when none helps and time may, all are asked again after a pause.

    Args:
        reference: the image.
        endpoints: where to ask; empty stands for the registry itself.
        credentials: each goes only to the host that it is for.
        access: the pull's time limits and proxies.
        patience: whether and how long to wait for a registry.
    """

    def __init__(
        self,
        reference: Reference,
        endpoints: Sequence[Endpoint],
        credentials: Sequence[Credentials],
        access: Access,
        patience: Patience,
    ) -> None:
        chosen = endpoints or (endpoint_of(reference.registry),)
        self._name = str(reference)
        self._patience = patience
        self._places = [
            Registry(reference, _for(endpoint, credentials), access, endpoint)
            for endpoint in chosen
        ]

    def digest(self, selector: str) -> str:
        """The digest of a manifest or index, or nothing where it takes a GET to know.

        Raises:
            DriverError: no place can be asked.
        """

        def ask(place: Registry) -> str:
            try:
                return place.digest(selector)
            except DriverError as error:
                if error.code in {Code.DENIED, Code.NOT_FOUND}:
                    return ""
                raise

        return self._first(self._resolving(selector), ask)

    def manifest(self, selector: str) -> tuple[bytes, str]:
        """See `ImageSource`; by digest a place that cannot resolve names will do.

        Raises:
            DriverError: no place has it; each is named.
        """
        return self._first(self._resolving(selector), lambda place: place.manifest(selector))

    def _resolving(self, selector: str) -> list[Registry]:
        by_digest = ":" in selector
        return [
            place
            for place in self._places
            if (place.endpoint.pull if by_digest else place.endpoint.resolve)
        ]

    def _first(self, places: Sequence[Registry], ask: Callable[[Registry], T]) -> T:
        """The first answer of a place, in as many rounds as make sense."""
        rounds = self._patience.rounds()
        while True:
            errors: list[DriverError] = []
            for place in places:
                try:
                    return ask(place)
                except DriverError as error:
                    errors.append(error)
                    if error.code not in _ELSEWHERE:
                        raise self.failure(errors) from error
            if not rounds.wait(errors):
                raise self.failure(errors)

    def tries(self, digest: str, size: int) -> Sequence[Callable[[], Iterator[bytes]]]:
        """See `ImageSource`; each way begins with another place, a registry alone is asked twice.

        A way goes on where it broke, and at another place where this one has nothing more.
        """
        places = [place for place in self._places if place.endpoint.pull]

        def way(first: int) -> Callable[[], Iterator[bytes]]:
            return lambda: self._whole([*places[first:], *places[:first]], digest, size)

        ways = [way(first) for first in range(len(places))]
        return ways * 2 if len(ways) == 1 else ways

    def _whole(self, places: Sequence[Registry], digest: str, size: int) -> Iterator[bytes]:
        """A blob's bytes in order, from as many answers as it takes.

        Raises:
            DriverError: while iterating; no place has the rest within the pull's time.
        """
        rounds = self._patience.rounds()
        got = 0
        while True:
            errors: list[DriverError] = []
            for place in places:
                error: DriverError | None = None
                before = -_PROGRESS_BYTES
                # The same place again, at once, as long as it sends something each time.
                while error is None or got - before >= _PROGRESS_BYTES:
                    before, error = got, None
                    try:
                        for chunk in place.blob(digest, size, got):
                            got += len(chunk)
                            yield chunk
                    except DriverError as failed:
                        error = failed
                        if failed.code is Code.CORRUPT and not failed.recoverable:
                            raise
                    else:
                        return
                    if got == size and size:
                        return
                    if got > before:
                        rounds.begin_anew()
                errors.append(error)
                if error.code not in _ELSEWHERE:
                    raise self.failure(errors) from error
            if not rounds.wait(errors):
                raise self.failure(errors)

    def again(self, error: DriverError) -> bool:
        """See `ImageSource`: a place that lied is passed over, all else has been tried."""
        return error.code is Code.CORRUPT

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
    """Those of the very place: another path of the same host may be another team's."""
    for one in credentials:
        if namespace_of(one.server_address) == namespace_of(endpoint.place):
            found = credentials_for(endpoint.host, one) if one.server_address else None
            if found is not None:
                return found
    return None
