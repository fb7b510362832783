"""ImageStore: finds a ready image in containerd, or starts the puller to fetch the image."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from actors.blocking import file_servers
from actors.images import collector
from actors.images.credentials import CredentialSources
from actors.images.kept_blobs import KeptBlobs
from actors.images.messages import ImageReady, ImageRequest, PullPolicy
from actors.images.pullers import Pullers, Report
from actors.images.tag_check import RegistryAccess, TagCheck
from actors.model import identifiers
from actors.model.ownership import LABEL_MAKER, LABEL_STATE_DIR
from containerd import reference
from containerd.image import platforms
from containerd.image.oci_image import load_image
from containerd.pull.protocol import Archive, PullRequest, PullResult
from containerd.registry.hosts import Endpoint, load
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from actors.model.settings import DriverSettings
    from containerd.api.client import Containerd

_REMEMBERED = 64
_log = logging.getLogger(__name__)


class ImageStore:
    """Source of images for a configuration of the driver. Belongs to the event loop.

    A remembered image is used only while containerd's image of the name has the same digest.

    Args:
        containerd: the client.
        settings: the driver's settings.
        pullers: run the pulls; all stores of a process share the pull server.
        maker: name of this plugin process in owner labels.
        proxies: variables of the environment that name proxies, for pullers and credential
            helpers.
    """

    def __init__(
        self,
        containerd: Containerd,
        settings: DriverSettings,
        pullers: Pullers,
        maker: str = "",
        proxies: Mapping[str, str] | None = None,
    ) -> None:
        self._containerd = containerd
        self._labels = {LABEL_MAKER: maker, LABEL_STATE_DIR: settings.state_dir}
        self._silence_s = settings.pull_activity_timeout_s
        self._hosts_directory = settings.registry_config_path
        self._credentials = CredentialSources(settings, proxies)
        self._proxies = proxies or {}
        self._pullers = pullers
        self._tags = TagCheck(self._proxies)
        self._kept = KeptBlobs(containerd, self._labels)
        self._known: OrderedDict[tuple[str, str], ImageReady] = OrderedDict()
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
                report("Loading image")
                ready = await self._pull(request, report)
            else:
                ready = await self._present_or_pulled(request, report)
        except DriverError as error:
            brief = f"Error in pulling image {request.written}: {error.brief}"
            raise error.replaced(brief=brief) from error
        mismatch = platforms.machine().mismatch(ready.config.platform)
        if mismatch and not request.platform:
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
            if present is None:
                report("Downloading image")
                return await self._pull(request, report)
            return await self._newest(request, report, present)
        except DriverError as error:
            if flaw is not None and str(flaw) != str(error):
                error.details = f"{error.details}; the present image cannot be run: {flaw}"
            if present is None or not error.recoverable or request.policy is PullPolicy.ALWAYS:
                raise
            _log.warning(
                "registry does not answer, using the present image",
                extra={"image": request.name, "reason": str(error)},
            )
            report(f"Registry not reachable, starting the image that is here: {error}")
            return present

    async def _newest(
        self, request: ImageRequest, report: Report, present: ImageReady
    ) -> ImageReady:
        """Returns the present image if the registry has no other, else the pulled image."""
        report("Asking the registry for a newer image")
        access = await self._access(request, report)
        try:
            digest = await self._tags.digest(request.name, access)
        except DriverError as error:
            if request.policy is PullPolicy.FRESH and error.recoverable:
                raise
            # A puller waits for a registry that may answer later, and words a final refusal.
            digest = None
        if digest == present.digest:
            report(f"Image {present.digest} is what the registry has")
            return present
        return await self._pull(request, report, access, present, asks=digest is None)

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
        key = name, request.platform
        known = self._known.get(key)
        # Two questions at once: the snapshot of a remembered image is the likely one.
        record, here = await asyncio.gather(
            self._containerd.images.get(name), self._has_snapshot(request, known)
        )
        if record is None:
            return None
        if collector.UNUSED_SINCE in record.labels:
            await self._containerd.images.set_label(name, collector.UNUSED_SINCE, "")
        ready = known
        if ready is None or ready.digest != record.digest:
            try:
                image = await load_image(self._containerd.content, record, request.platform)
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
            here = await self._has_snapshot(request, ready)
        if not here:
            return None
        self._known[key] = ready
        self._known.move_to_end(key)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return ready

    async def _has_snapshot(self, request: ImageRequest, image: ImageReady | None) -> bool:
        if image is None:
            return False
        return await self._containerd.snapshots.exists(request.snapshotter, image.chain_id)

    async def _pull(
        self,
        request: ImageRequest,
        report: Report,
        access: RegistryAccess | None = None,
        present: ImageReady | None = None,
        *,
        asks: bool = False,
    ) -> ImageReady:
        """Runs a puller under a lease.

        Args:
            request: the image.
            report: receives a sentence for the task's events.
            access: hosts and credentials, if known already.
            present: the image on this node.
            asks: True compares the registry's digest with the present image first.
        """
        begun = time.monotonic()
        loading = request.archive is not None
        lease = identifiers.pull_lease(secrets.randbits(64))
        await self._containerd.leases.create(
            lease, expire_s=request.timeout_s + 3600, labels=self._labels
        )
        ready = None
        try:
            wire = self._wire_request(request, lease, present if asks else None)
            # A busy registry must not delay a start that can use the present image.
            waits = present is None or request.policy is PullPolicy.ALWAYS
            wire = dataclasses.replace(wire, waits=waits)
            pulled = await self._fetch(request, wire, report, access)
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

    async def _access(self, request: ImageRequest, report: Report) -> RegistryAccess:
        """Reads the operator's hosts for the registry, and finds the credentials."""
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
        return RegistryAccess(endpoints=endpoints, credentials=credentials)

    async def _fetch(
        self,
        request: ImageRequest,
        wire: PullRequest,
        report: Report,
        access: RegistryAccess | None,
    ) -> PullResult:
        """Runs the puller with the operator's settings for the registry."""
        if request.archive is not None:
            await file_servers.run_probed(lambda: _visit(request.archive))
            return await self._pullers.run(wire, report)
        access = access or await self._access(request, report)
        plain = dataclasses.replace(wire, endpoints=access.endpoints)
        wire = dataclasses.replace(plain, credentials=access.credentials)
        try:
            return await self._pullers.run(wire, report)
        except DriverError as error:
            soft = access.credentials and request.auth_soft_fail and error.code is Code.DENIED
            if not soft:
                raise
            report(f"Pulling once more without credentials: {error}")
        return await self._pullers.run(plain, report)

    def _endpoints(self, registry: str) -> tuple[Endpoint, ...]:
        for name in (registry, "_default") if self._hosts_directory else ():
            file_servers.visit(f"{self._hosts_directory}/{name}/hosts.toml", "registry_config_path")
        return load(self._hosts_directory, registry)

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
            platform=request.platform,
            timeout_s=request.timeout_s,
            silence_s=self._silence_s,
            labels={collector.PULLED: "true"},
            archive=request.archive,
            proxies=self._proxies,
            present=present.digest if present else "",
        )


def _visit(archive: Archive | None) -> None:
    if archive is not None:
        file_servers.visit(archive.path, "load", root=archive.root)
