"""ImageStore: finds a ready image in containerd, or starts the puller to fetch the image."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import secrets
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from actors.blocking import file_servers
from actors.images import collector
from actors.images.credentials import CredentialSources
from actors.images.kept_blobs import KeptBlobs
from actors.images.messages import ImageReady, ImageRequest, PullPolicy
from actors.model import identifiers
from actors.model.ownership import LABEL_MAKER, LABEL_STATE_DIR
from actors.processes import child_process
from containerd import reference
from containerd.image import platforms
from containerd.image.oci_image import load_image
from containerd.pull.protocol import Archive, Progress, PullRequest, PullResult
from containerd.registry.hosts import Endpoint, load
from proto import frames
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from actors.model.settings import DriverSettings
    from containerd.api.client import Containerd

Report = Callable[[str], object]
_REMEMBERED = 64
_GRACE_S = 10.0
_END_S = 5.0
_log = logging.getLogger(__name__)


class _Pace:
    """Times of progress events: after 1, 2, 4 … seconds, then once a minute.

    Nomad keeps only the ten newest events of a task: frequent events would push out others.
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
    """Source of images for a configuration of the driver. Belongs to the event loop.

    The cache of images has digests as keys, so a cached entry is never wrong.

    Args:
        containerd: the client.
        settings: the driver's settings.
        maker: name of this plugin process in owner labels.
        proxies: variables of the environment that name proxies, for pullers and credential
            helpers.
    """

    def __init__(
        self,
        containerd: Containerd,
        settings: DriverSettings,
        maker: str = "",
        proxies: Mapping[str, str] | None = None,
    ) -> None:
        self._containerd = containerd
        self._labels = {LABEL_MAKER: maker, LABEL_STATE_DIR: settings.state_dir}
        self._silence_s = settings.pull_activity_timeout_s
        self._hosts_directory = settings.registry_config_path
        self._credentials = CredentialSources(settings, proxies)
        self._proxies = proxies or {}
        self._kept = KeptBlobs(containerd, self._labels)
        self._known: OrderedDict[str, ImageReady] = OrderedDict()
        self._snapshotters = {containerd.default_snapshotter}

    async def ensure(self, request: ImageRequest, report: Report) -> ImageReady:
        """Provides the unpacked image. The policy decides about a pull or a load.

        Args:
            request: the image and the policy.
            report: receives a sentence for the task's events.

        Raises:
            DriverError: `Error in pulling image <as written>: …`.
        """
        try:
            await self._check_snapshotter(request.snapshotter)
            if request.archive is not None:
                ready = await self._pull(request, report)
            else:
                ready = await self._present_or_pulled(request, report)
        except DriverError as error:
            brief = f"Error in pulling image {request.written}: {error.brief}"
            raise error.replaced(brief=brief) from error
        if mismatch := platforms.machine().mismatch(ready.config.platform):
            report(mismatch)
        return ready

    async def _present_or_pulled(self, request: ImageRequest, report: Report) -> ImageReady:
        present, flaw = await self._present(request)
        if present is not None and request.policy in {PullPolicy.MISSING, PullPolicy.NEVER}:
            return present
        if request.policy is PullPolicy.NEVER:
            raise flaw or DriverError(
                'it is not on this node, and image_pull_policy is "never"',
                details=f"containerd namespace {self._containerd.namespace},"
                f" snapshotter {request.snapshotter}",
                resolution="load the image into this namespace, or use another policy",
                code=Code.NOT_FOUND,
            )
        try:
            return await self._pull(request, report, present)
        except DriverError as error:
            if flaw is not None:
                error.details = f"{error.details}; the present image cannot be run: {flaw}"
            if present is None or not error.recoverable or request.policy is PullPolicy.ALWAYS:
                raise
            _log.warning(
                "registry does not answer, using the present image",
                extra={"image": request.name, "reason": str(error)},
            )
            report(f"Registry not reachable, starting the image that is here: {error}")
            return present

    async def _present(self, request: ImageRequest) -> tuple[ImageReady | None, DriverError | None]:
        """Returns the present image, or the reason why the present image cannot be run."""
        try:
            return await self._find(request, request.name), None
        except DriverError as error:
            if error.recoverable:  # containerd does not answer, so the error is not about the image
                raise
            _log.info(
                "present image cannot be run, pulling",
                extra={"image": request.name, "reason": str(error)},
            )
            return None, error

    async def _check_snapshotter(self, name: str) -> None:
        if name in self._snapshotters:
            return
        available = await self._containerd.snapshotters()
        if name not in available:
            raise DriverError(
                f'containerd has no snapshotter "{name}"',
                details=f"working snapshotters: {', '.join(available) or 'none'}",
                resolution="set snapshotter to a working snapshotter, or install this snapshotter",
                code=Code.INVALID,
            )
        self._snapshotters.add(name)

    async def _find(self, request: ImageRequest, name: str) -> ImageReady | None:
        record = await self._containerd.images.get(name)
        if record is None:
            return None
        if collector.UNUSED_SINCE in record.labels:
            await self._containerd.images.set_label(name, collector.UNUSED_SINCE, "")
        ready = self._known.get(record.digest)
        if ready is None or ready.name != name:
            try:
                image = await load_image(self._containerd.content, record)
            except DriverError as error:
                if error.code is not Code.NOT_FOUND:
                    raise
                _log.info(
                    "present image is incomplete, pulling",
                    extra={"image": name, "reason": str(error)},
                )
                return None
            ready = ImageReady(
                name=name,
                digest=record.digest,
                chain_id=image.chain_id,
                config=image.config,
            )
        if not await self._containerd.snapshots.exists(request.snapshotter, ready.chain_id):
            return None
        self._known[record.digest] = ready
        self._known.move_to_end(record.digest)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return ready

    async def _pull(
        self, request: ImageRequest, report: Report, present: ImageReady | None = None
    ) -> ImageReady:
        begun = time.monotonic()
        loading = request.archive is not None
        if present is None:
            report("Loading image" if loading else "Downloading image")
        else:
            report("Asking the registry for a newer image")
        lease = identifiers.pull_lease(secrets.randbits(64))
        await self._containerd.leases.create(
            lease, expire_s=request.timeout_s + 3600, labels=self._labels
        )
        ready = None
        try:
            pulled = await self._fetch(request, lease, report, present)
            ready = present if pulled.unchanged else await self._find(request, pulled.name)
        except DriverError as error:
            if not loading:
                await self._kept.keep(request.name, lease, error)
            raise
        finally:
            # After a failure containerd collects garbage at once: the disk may be full.
            with contextlib.suppress(DriverError):
                await self._containerd.leases.delete(lease, collect=ready is None)
        if ready is None:
            raise DriverError(
                "the image vanished directly after the pull",
                resolution="another program removes images in containerd's namespace; try again",
                recoverable=True,
            )
        await self._kept.drop(request.name)
        if pulled.unchanged:
            report(f"Image {ready.digest} is what the registry has")
            return ready
        seconds = time.monotonic() - begun
        verb = "loaded" if loading else "pulled"
        report(f"Image {ready.digest} {verb}: {pulled.size / 1e6:.1f} MB in {seconds:.1f} s")
        return ready

    async def _fetch(
        self, request: ImageRequest, lease: str, report: Report, present: ImageReady | None
    ) -> PullResult:
        """Runs the puller with the operator's settings for the registry."""
        plain = self._wire_request(request, lease, present)
        if request.archive is not None:
            await file_servers.run_probed(lambda: _visit(request.archive))
            return await self._run_puller(request, plain, report)
        name = reference.parse(request.name)
        registry = name.registry
        endpoints = await file_servers.run_probed(lambda: self._endpoints(registry))
        hosts = [registry, *(endpoint.address for endpoint in endpoints)]
        try:
            credentials = await self._credentials.find(
                registry, hosts, request.auth, name.repository
            )
        except DriverError as error:
            if not request.auth_soft_fail:
                raise
            report(f"Pulling without credentials: {error}")
            credentials = ()
        plain = dataclasses.replace(plain, endpoints=endpoints)
        wire = dataclasses.replace(plain, credentials=credentials)
        try:
            return await self._run_puller(request, wire, report)
        except DriverError as error:
            if not (credentials and request.auth_soft_fail and error.code is Code.DENIED):
                raise
            report(f"Pulling once more without credentials: {error}")
        return await self._run_puller(request, plain, report)

    def _endpoints(self, registry: str) -> tuple[Endpoint, ...]:
        for name in (registry, "_default") if self._hosts_directory else ():
            file_servers.visit(f"{self._hosts_directory}/{name}/hosts.toml", "registry_config_path")
        return load(self._hosts_directory, registry)

    async def _run_puller(
        self, request: ImageRequest, wire: PullRequest, report: Report
    ) -> PullResult:
        argv = [sys.executable, "-I", str(child_process.ROOT / "containerd" / "puller.py")]
        loop = asyncio.get_running_loop()
        process = await child_process.started(
            argv, stdin=child_process.PIPE, stdout=child_process.PIPE, new_session=True
        )
        try:
            async with asyncio.timeout(request.timeout_s + _GRACE_S):
                return await _converse(process, wire.to_wire(), report)
        except TimeoutError:
            raise DriverError(
                f"the pull was cancelled after {request.timeout_s:g} s",
                resolution="raise image_pull_timeout, or check the registry and the network",
                recoverable=True,
                code=Code.TIMEOUT,
            ) from None
        finally:
            await loop.run_in_executor(None, child_process.finish, process, _END_S)

    def _wire_request(
        self, request: ImageRequest, lease: str, present: ImageReady | None
    ) -> PullRequest:
        """Builds the puller's request without mirrors and credentials."""
        return PullRequest(
            reference=request.name,
            address=self._containerd.address,
            namespace=self._containerd.namespace,
            snapshotter=request.snapshotter,
            lease=lease,
            platform="",
            timeout_s=request.timeout_s,
            silence_s=self._silence_s,
            labels={collector.PULLED: "true"},
            archive=request.archive,
            proxies=self._proxies,
            present=present.digest if present else "",
            # A busy registry must not delay a start that can use the present image.
            waits=present is None or request.policy is PullPolicy.ALWAYS,
        )


def _visit(archive: Archive | None) -> None:
    if archive is not None:
        file_servers.visit(archive.path, "load", root=archive.root)


async def _converse(
    process: child_process.Child, request: frames.Frame, report: Report
) -> PullResult:
    """Sends the request to the puller, reports progress, and returns the result."""
    assert process.stdin is not None  # noqa: S101 - stdin is PIPE
    assert process.stdout is not None  # noqa: S101
    with contextlib.suppress(BrokenPipeError):  # the puller has died; see the exit status
        process.stdin.write(frames.encode(request))
        process.stdin.flush()  # the pipe stays open: its end stops the puller
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
                            report(Progress.from_wire(frame).sentence())
                    case "step":
                        keys = {
                            "image": request.get("reference"),
                            "elapsed_ms": frame.get("elapsed_ms"),
                        }
                        _log.debug("pull: %s", frame.get("step"), extra=keys)
                    case "note":
                        report(str(frame.get("text", "")))
                    case "done":
                        return PullResult.from_wire(frame)
                    case "failed":
                        raise DriverError.from_wire(frame.get("error"))
    finally:
        transport.close()
    status = await asyncio.to_thread(child_process.finish, process, _END_S)
    raise DriverError(
        "the puller process ended without an answer",
        details=f"killed by signal {-status}" if status < 0 else f"exit status {status}",
        resolution="see dmesg: perhaps memory or processes ran out (MemoryMax and TasksMax of the"
        " Nomad agent's unit)",
        recoverable=True,
        code=Code.UNAVAILABLE,
    )
