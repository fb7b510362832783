"""Writing of blobs into containerd's content store, which checks size and digest itself."""

from __future__ import annotations

import queue
import secrets
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from containerd.api import methods
from containerd.pull.calls import SyncCalls
from proto.containerd import content_pb2
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from containerd.image.manifests import Descriptor

_STAT, _WRITE, _COMMIT = content_pb2.STAT, content_pb2.WRITE, content_pb2.COMMIT


class ContentStore:
    """containerd's content store, under the lease of the calls. Threads may share an instance."""

    def __init__(self, calls: SyncCalls) -> None:
        self._calls = calls

    def read(self, digest: str, limit_bytes: int) -> bytes:
        """Returns a small blob.

        Args:
            digest: the blob.
            limit_bytes: bytes of a larger blob that are read.

        Raises:
            DriverError: NOT_FOUND, or another failure of containerd.
        """
        request = content_pb2.ReadContentRequest(digest=digest, size=limit_bytes)
        parts = self._calls.stream(methods.CONTENT_READ, request, f"read blob {digest}")
        return b"".join(part.data for part in parts)

    def write(
        self,
        blob: Descriptor,
        chunks: Iterable[bytes],
        labels: dict[str, str],
        progress: Callable[[int], None],
    ) -> None:
        """Writes a blob, and protects the blob by the lease, even if the blob exists already.

        The ingest has a unique name, so that no half-written blob of an earlier pull is continued.
        A failure aborts the ingest.

        Args:
            blob: digest and size that the content must have.
            chunks: the content; not read if the blob exists.
            labels: labels of a new blob.
            progress: called with the number of bytes of each written chunk.

        Raises:
            DriverError: CORRUPT for a wrong size or digest, or the error that `chunks` raises.
        """
        name = f"nomad-driver-containerd-{blob.digest}-{secrets.token_hex(8)}"
        try:
            self._stream(name, blob, chunks, labels, progress)
        except DriverError as error:
            if error.code is Code.ALREADY_EXISTS:
                return  # written by an earlier pull or by a faster writer
            self._abort(name)
            raise
        except BaseException:
            self._abort(name)
            raise

    def _stream(
        self,
        name: str,
        blob: Descriptor,
        chunks: Iterable[bytes],
        labels: dict[str, str],
        progress: Callable[[int], None],
    ) -> None:
        action = f"store blob {blob.digest}"
        # Each request waits for the previous answer, so that memory holds one chunk, not a layer.
        outbox: queue.SimpleQueue[content_pb2.WriteContentRequest | None] = queue.SimpleQueue()
        answers = self._calls.stream(
            methods.CONTENT_WRITE, iter(outbox.get, None), action, many_requests=True
        )

        def send(request: content_pb2.WriteContentRequest) -> int:
            outbox.put(request)
            answer = next(answers, None)
            if answer is None:
                raise DriverError(
                    f"containerd cannot {action}", recoverable=True, code=Code.UNAVAILABLE
                )
            return int(answer.offset)

        try:
            # Not 0 if another namespace of containerd has the blob: containerd then shares it.
            offset = send(
                content_pb2.WriteContentRequest(
                    action=_STAT, ref=name, total=blob.size, expected=blob.digest
                )
            )
            for chunk in chunks if offset == 0 else ():
                if offset + len(chunk) > blob.size:
                    raise _too_long(blob)
                send(
                    content_pb2.WriteContentRequest(
                        action=_WRITE, ref=name, total=blob.size, offset=offset, data=chunk
                    )
                )
                offset += len(chunk)
                progress(len(chunk))
            try:
                send(
                    content_pb2.WriteContentRequest(
                        action=_COMMIT,
                        ref=name,
                        total=blob.size,
                        offset=offset,
                        expected=blob.digest,
                        labels=labels,
                    )
                )
            except DriverError as error:
                if error.code is Code.PRECONDITION:
                    raise _wrong_content(blob, error) from error
                raise
        finally:
            outbox.put(None)
            answers.close()

    def _abort(self, name: str) -> None:
        request = content_pb2.AbortRequest(ref=name)
        try:
            self._calls(methods.CONTENT_ABORT, request, "abort a download")
        except DriverError:
            return  # containerd drops the ingest at the end of the lease


def _too_long(blob: Descriptor) -> DriverError:
    return DriverError(
        f"blob {blob.digest} is larger than its manifest says",
        details=f"more than {blob.size} bytes",
        resolution="push or save the image again",
        code=Code.CORRUPT,
    )


def _wrong_content(blob: Descriptor, error: DriverError) -> DriverError:
    return DriverError(
        f"the registry sent other content than {blob.digest}",
        details=error.details,
        resolution="push the image again; if the error stays, distrust the registry and proxies",
        code=Code.CORRUPT,
    )


def chunks_of(body: bytes, size: int = 256 * 1024) -> Iterator[bytes]:
    """Yields a body in pieces that fit into a message."""
    for start in range(0, len(body), size):
        yield body[start : start + size]
