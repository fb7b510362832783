"""Sources of an image's blobs: a registry with its mirrors, or an archive."""

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
    from containerd.registry.retries import Retries

T = TypeVar("T")

# Failures that another host, or a later round, may not have.
_ELSEWHERE = frozenset({Code.CORRUPT, Code.UNAVAILABLE, Code.DENIED, Code.NOT_FOUND, Code.TIMEOUT})
# After so many bytes the same host is asked again at once; with fewer the next host has its turn.
_PROGRESS_BYTES = 16 * 1024


class ImageSource(Protocol):
    """Source of manifests and blobs. Threads may share an instance."""

    def manifest(self, selector: str) -> tuple[bytes, str]:
        """Returns a verified manifest or index, and the media type that the source states.

        Args:
            selector: a tag or a digest.
        """
        ...

    def attempts(self, digest: str, size: int) -> Sequence[Callable[[], Iterator[bytes]]]:
        """Returns attempts to read a blob, in order. The bytes are not verified.

        Args:
            digest: the blob.
            size: bytes of the blob.
        """
        ...

    def retries(self, error: DriverError) -> bool:
        """Returns True if the next attempt makes sense after the failure of an attempt."""
        ...

    def failure(self, errors: Sequence[DriverError]) -> DriverError:
        """Returns the error for the failures of all attempts."""
        ...


class RegistrySource:
    """A registry and its mirrors, in the operator's order.

    All hosts are asked in order. If a pause may help, all hosts are asked again after a pause.

    Args:
        reference: the image.
        endpoints: the hosts; empty for the registry alone.
        credentials: credentials, each for its own host only.
        access: the pull's time limits and proxies.
        retries: pauses between the rounds.
    """

    def __init__(
        self,
        reference: Reference,
        endpoints: Sequence[Endpoint],
        credentials: Sequence[Credentials],
        access: Access,
        retries: Retries,
    ) -> None:
        chosen = endpoints or (endpoint_of(reference.registry),)
        self._name = str(reference)
        self._retries = retries
        self._hosts = [
            Registry(reference, _for(endpoint, credentials), access, endpoint)
            for endpoint in chosen
        ]

    def digest(self, selector: str) -> str:
        """Returns the digest of a manifest or index; empty if only a GET can answer.

        Raises:
            DriverError: no host answers.
        """

        def ask(host: Registry) -> str:
            try:
                return host.digest(selector)
            except DriverError as error:
                if error.code in {Code.DENIED, Code.NOT_FOUND}:
                    return ""
                raise

        return self._first(self._resolving(selector), ask)

    def manifest(self, selector: str) -> tuple[bytes, str]:
        """See `ImageSource.manifest`. By digest, hosts that cannot resolve tags are asked too.

        Raises:
            DriverError: no host has the manifest; the details name each host.
        """
        return self._first(self._resolving(selector), lambda host: host.manifest(selector))

    def _resolving(self, selector: str) -> list[Registry]:
        by_digest = ":" in selector
        return [
            host
            for host in self._hosts
            if (host.endpoint.pull if by_digest else host.endpoint.resolve)
        ]

    def _first(self, hosts: Sequence[Registry], ask: Callable[[Registry], T]) -> T:
        """Returns the first answer of a host; asks in rounds while `retries` allows."""
        rounds = self._retries.rounds()
        while True:
            errors: list[DriverError] = []
            for host in hosts:
                try:
                    return ask(host)
                except DriverError as error:
                    errors.append(error)
                    if error.code not in _ELSEWHERE:
                        raise self.failure(errors) from error
            if not rounds.wait(errors):
                raise self.failure(errors)

    def attempts(self, digest: str, size: int) -> Sequence[Callable[[], Iterator[bytes]]]:
        """See `ImageSource.attempts`. Each attempt begins with another host; a sole host has two.

        An attempt continues after a broken answer, at the same host or at the next host.
        """
        hosts = [host for host in self._hosts if host.endpoint.pull]

        def attempt(first: int) -> Callable[[], Iterator[bytes]]:
            return lambda: self._blob([*hosts[first:], *hosts[:first]], digest, size)

        attempts = [attempt(first) for first in range(len(hosts))]
        return attempts * 2 if len(attempts) == 1 else attempts

    def _blob(self, hosts: Sequence[Registry], digest: str, size: int) -> Iterator[bytes]:
        """Yields a blob's bytes in order, from one or more answers.

        Raises:
            DriverError: while iterating; no host has the rest within the pull's time.
        """
        rounds = self._retries.rounds()
        got = 0
        while True:
            errors: list[DriverError] = []
            for host in hosts:
                error: DriverError | None = None
                before = -_PROGRESS_BYTES
                # The same host is asked again at once while each answer brings enough bytes.
                while error is None or got - before >= _PROGRESS_BYTES:
                    before, error = got, None
                    try:
                        for chunk in host.blob(digest, size, got):
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

    def retries(self, error: DriverError) -> bool:
        """See `ImageSource.retries`. After wrong content, another host may have the blob.

        All other failures come after all hosts were asked.
        """
        return error.code is Code.CORRUPT

    def failure(self, errors: Sequence[DriverError]) -> DriverError:
        """See `ImageSource.failure`. The last host is the registry itself, so its error counts."""
        if not errors:
            return DriverError(
                f"no host can serve {self._name}",
                details="no host in the registry's hosts file has the capability",
                resolution='add "pull" and "resolve" to the capabilities of a host',
                code=Code.INVALID,
            )
        last = errors[-1]
        texts = dict.fromkeys(f"{error.brief}: {error.details}" for error in errors)
        if len(texts) == 1:
            return last
        return last.replaced(details="; ".join(texts)[:2000])


def _for(endpoint: Endpoint, credentials: Sequence[Credentials]) -> Credentials | None:
    """Returns the credentials of an endpoint: another path of a host may belong to another team."""
    for entry in credentials:
        if namespace_of(entry.server_address) == namespace_of(endpoint.address):
            matching = credentials_for(endpoint.host, entry) if entry.server_address else None
            if matching is not None:
                return matching
    return None
