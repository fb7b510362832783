"""Writing blobs into containerd's content store, which checks size and digest itself."""

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

_CALL_S = 30.0
_STAT, _WRITE, _COMMIT = content_pb2.STAT, content_pb2.WRITE, content_pb2.COMMIT


class ContentStore:
    """The content store as the puller needs it. Threads may share it."""

    def __init__(self, calls: SyncCalls) -> None:
        self._calls = calls

    def read(self, digest: str, limit_bytes: int) -> bytes:
        """A small blob whole."""
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
        """Streams a blob in and commits it; takes nothing from `chunks` when it is there already.

        Asking to write is also what puts a blob that is there under the lease. The ingest has a
        name of its own, so nothing that an earlier pull left half-written is ever continued; it
        is aborted when this one fails.

        Raises:
            DriverError: CORRUPT when size or digest do not hold, or whatever `chunks` raises.
        """
        name = f"nomad-driver-containerd-{blob.digest}-{secrets.token_hex(8)}"
        try:
            self._stream(name, blob, chunks, labels, progress)
        except DriverError as error:
            if error.code is Code.ALREADY_EXISTS:
                return  # from an earlier pull, or another writer was faster
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
        what = f"store blob {blob.digest}"
        # One request at a time, the next after its answer: the wire holds one chunk, not a layer.
        outbox: queue.SimpleQueue[content_pb2.WriteContentRequest | None] = queue.SimpleQueue()
        answers = self._calls.stream(
            methods.CONTENT_WRITE, iter(outbox.get, None), what, many_requests=True
        )

        def ask(request: content_pb2.WriteContentRequest) -> int:
            outbox.put(request)
            answer = next(answers, None)
            if answer is None:
                raise DriverError(
                    f"containerd cannot {what}", recoverable=True, code=Code.UNAVAILABLE
                )
            return int(answer.offset)

        try:
            # Not 0 where another of containerd's namespaces has the blob: then it is shared whole.
            offset = ask(
                content_pb2.WriteContentRequest(
                    action=_STAT, ref=name, total=blob.size, expected=blob.digest
                )
            )
            for chunk in chunks if offset == 0 else ():
                if offset + len(chunk) > blob.size:
                    raise _too_long(blob)
                ask(
                    content_pb2.WriteContentRequest(
                        action=_WRITE, ref=name, total=blob.size, offset=offset, data=chunk
                    )
                )
                offset += len(chunk)
                progress(len(chunk))
            try:
                ask(
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
            self._calls(methods.CONTENT_ABORT, request, "abort a download", _CALL_S)
        except DriverError:
            return  # containerd drops ingests that no lease holds


def _too_long(blob: Descriptor) -> DriverError:
    return DriverError(
        f"blob {blob.digest} is longer than its manifest says",
        details=f"more than {blob.size} bytes",
        resolution="push or save the image again",
        code=Code.CORRUPT,
    )


def _wrong_content(blob: Descriptor, error: DriverError) -> DriverError:
    return DriverError(
        f"the registry sent other content than {blob.digest}",
        details=error.details,
        resolution="do not trust this registry or what lies between; else push the image again",
        code=Code.CORRUPT,
    )


def chunks_of(body: bytes, size: int = 256 * 1024) -> Iterator[bytes]:
    """A body in pieces that fit a message."""
    for start in range(0, len(body), size):
        yield body[start : start + size]
