"""ImageStore: finds an image that is ready in containerd, or has the puller process fetch it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from actors import child_process
from actors.identifiers import PREFIX
from actors.image_wire import ImageReady, ImageRequest
from containerd import images, pull_wire
from proto import frames
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from containerd.client import Containerd

Report = Callable[[str], object]
_REMEMBERED = 64
_GRACE_S = 10.0
_END_S = 5.0
_log = logging.getLogger(__name__)


class _Pace:
    """When to speak of a pull: after 1, 2, 4 … seconds, then once a minute.

    Nomad keeps only the ten newest events of a task, so chatter would push out what matters.
    """

    def __init__(self) -> None:
        self._pause_s = 1.0
        self._next = time.monotonic() + self._pause_s

    def due(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._pause_s = min(60.0, self._pause_s * 2)
        self._next = now + self._pause_s
        return True


class ImageStore:
    """Belongs to the event loop; one per containerd.

    What it remembers of an image is keyed by digest, so it can be old but never wrong.
    """

    def __init__(self, containerd: Containerd) -> None:
        self._containerd = containerd
        self._known: OrderedDict[str, ImageReady] = OrderedDict()

    async def ensure(self, request: ImageRequest, report: Report) -> ImageReady:
        """The image, unpacked; pulled when it is missing or the request says always.

        Raises:
            DriverError: `Error in pulling image <as written>: …`.
        """
        present = await self._find(request)
        if present is not None and not request.always_pull:
            return present
        try:
            return await self._pull(request, report)
        except DriverError as error:
            if present is not None and error.recoverable:
                _log.warning("registry away, image present", extra={"image": request.name})
                report(f"Registry not reachable, starting the image that is here: {error}")
                return present
            raise DriverError(
                f"Error in pulling image {request.written}: {error.brief}",
                details=error.details,
                resolution=error.resolution,
                recoverable=error.recoverable,
                code=error.code,
            ) from error

    async def _find(self, request: ImageRequest) -> ImageReady | None:
        record = await self._containerd.image(request.name)
        if record is None:
            return None
        ready = self._known.get(record.digest)
        if ready is None or ready.name != request.name:
            try:
                found = await images.load(self._containerd, record)
            except DriverError as error:
                _log.info("image is incomplete, pulling", extra={"why": str(error)})
                return None
            ready = ImageReady(
                name=request.name,
                digest=record.digest,
                chain_id=found.chain_id,
                config=found.config,
            )
        if not await self._containerd.snapshot_exists(request.snapshotter, ready.chain_id):
            return None
        self._known[record.digest] = ready
        self._known.move_to_end(record.digest)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return ready

    async def _pull(self, request: ImageRequest, report: Report) -> ImageReady:
        begun = time.monotonic()
        report("Downloading image")
        lease = f"{PREFIX}-pull-{time.time_ns():x}"
        await self._containerd.create_lease(lease, expire_s=request.timeout_s + 3600, labels={})
        try:
            size = await self._run_puller(request, lease, report)
            ready = await self._find(request)
        finally:
            with contextlib.suppress(DriverError):
                await self._containerd.delete_lease(lease)
        if ready is None:
            raise DriverError(
                "the image vanished right after it was pulled",
                resolution="something else removes images in containerd's namespace; try again",
                recoverable=True,
            )
        seconds = time.monotonic() - begun
        report(f"Image {ready.digest} pulled: {size / 1e6:.1f} MB in {seconds:.1f} s")
        return ready

    async def _run_puller(self, request: ImageRequest, lease: str, report: Report) -> int:
        argv = [sys.executable, "-I", str(child_process.ROOT / "containerd" / "puller.py")]
        loop = asyncio.get_running_loop()
        process = await loop.run_in_executor(
            None,
            lambda: child_process.start(
                argv, stdin=child_process.PIPE, stdout=child_process.PIPE, new_session=True
            ),
        )
        try:
            async with asyncio.timeout(request.timeout_s + _GRACE_S):
                return await _converse(process, self._wire_request(request, lease), report)
        except TimeoutError:
            raise DriverError(
                f"the pull was cancelled after {request.timeout_s:g} s",
                resolution="raise image_pull_timeout, or look at the registry and the network",
                recoverable=True,
                code=Code.TIMEOUT,
            ) from None
        finally:
            await loop.run_in_executor(None, child_process.finish, process, _END_S)

    def _wire_request(self, request: ImageRequest, lease: str) -> frames.Frame:
        auth = None
        if request.auth is not None:
            auth = pull_wire.Credentials(
                username=request.auth.username,
                password=request.auth.password,
                server_address=request.auth.server_address,
            )
        return pull_wire.PullRequest(
            reference=request.name,
            address=self._containerd.address,
            namespace=self._containerd.namespace,
            snapshotter=request.snapshotter,
            lease=lease,
            platform="",
            auth=auth,
            timeout_s=request.timeout_s,
            labels={f"{PREFIX}.io/pulled": "true"},
        ).to_wire()


async def _converse(process: child_process.Child, request: frames.Frame, report: Report) -> int:
    """Hands over the request, reports progress, returns the image's size in bytes."""
    assert process.stdin is not None  # noqa: S101 - PIPE was asked for
    assert process.stdout is not None  # noqa: S101
    process.stdin.write(frames.encode(request))
    process.stdin.flush()  # it stays open: its end tells the puller to stop
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), process.stdout
    )
    decoder = frames.Decoder()
    pace = _Pace()
    try:
        while data := await reader.read(65536):
            for frame in decoder.feed(data):
                match frame.get("event"):
                    case "progress":
                        if pace.due():
                            report(pull_wire.Progress.from_wire(frame).sentence())
                    case "done":
                        return pull_wire.PullResult.from_wire(frame).size
                    case "failed":
                        error = frame.get("error")
                        raise DriverError.from_wire(error if isinstance(error, dict) else {})
    finally:
        transport.close()
    raise DriverError(
        "the puller process ended without an answer",
        details="it may have been killed, for want of memory perhaps",
        recoverable=True,
        code=Code.UNAVAILABLE,
    )
