"""Which images nobody needs any more: counted from containerd, so a restart forgets nothing.

Only images that this driver pulled or loaded count, by a label. One that no container uses gets a
second label with the time since when; after the delay it may go. A container that uses it, or a
start that asks for it, takes the second label away.

That time is the boot's, with the boot's id: nobody sets that clock, and it counts what a suspended
machine slept. The time of another boot says nothing, so after a reboot the delay begins anew.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from actors.model.identifiers import PREFIX
from proto.errors import DriverError
from workers import identity

if TYPE_CHECKING:
    from containerd.api.client import Containerd
    from containerd.api.records import ImageRecord

PULLED = f"{PREFIX}.io/pulled"
UNUSED_SINCE = f"{PREFIX}.io/unused-since"
_MAX_PAUSE_S = 300.0
_MIN_PAUSE_S = 1.0
_log = logging.getLogger(__name__)


def since_boot() -> float:
    """Seconds since the machine's boot, sleep counted."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ImageCollector:
    """Belongs to the event loop. Decides by containerd's books; the ImageActor has the last word.

    Args:
        containerd: whose images.
        delay_s: how long an image stays after its last container.
        now: seconds since the boot.
        boot: which boot that is.
    """

    def __init__(
        self,
        containerd: Containerd,
        delay_s: float,
        now: Callable[[], float] = since_boot,
        boot: str = "",
    ) -> None:
        self._containerd = containerd
        self._delay_s = delay_s
        self._now = now
        self._boot = boot or identity.boot_id()
        self.pause_s = max(_MIN_PAUSE_S, min(_MAX_PAUSE_S, delay_s / 4))

    async def due(self, busy: Collection[str]) -> tuple[str, ...]:
        """Names of images that have been unused for the delay; marks the newly unused ones.

        Args:
            busy: names that count as used, whatever containerd says.

        Raises:
            DriverError: containerd cannot be asked.
        """
        ours = await self._containerd.images.list(f'labels."{PULLED}"==true')
        if not ours:
            return ()
        used = {record.image for record in await self._containerd.containers.list()} | set(busy)
        found: list[str] = []
        for image in ours:
            marked = UNUSED_SINCE in image.labels
            since = self._since(image)
            if image.name in used:
                if marked:
                    await self._containerd.images.set_label(image.name, UNUSED_SINCE, "")
            elif since is None:
                mark = f"{self._boot}/{int(self._now())}"
                await self._containerd.images.set_label(image.name, UNUSED_SINCE, mark)
            elif self._is_due(since):
                found.append(image.name)
        return tuple(found)

    async def remove(self, name: str) -> None:
        """Removes an image if it is still due; another plugin may have begun to use it.

        Raises:
            DriverError: containerd does not remove it.
        """
        image = await self._containerd.images.get(name)
        since = self._since(image) if image is not None else None
        if image is None or since is None or not self._is_due(since):
            return
        await self._containerd.images.delete(name)
        _log.info(
            "image removed, no task uses it",
            extra={"image": name, "digest": image.digest, "unused_s": round(self._now() - since)},
        )

    async def remove_quietly(self, name: str) -> None:
        """As `remove`; a failure is logged, the next sweep tries again."""
        try:
            await self.remove(name)
        except DriverError as error:
            _log.warning("image is not removed", extra={"image": name, "why": str(error)})

    def _is_due(self, since: float) -> bool:
        return self._now() - since >= self._delay_s

    def _since(self, image: ImageRecord) -> float | None:
        """None for an image without a mark, or with one of another boot, release or hand."""
        boot, _, text = image.labels.get(UNUSED_SINCE, "").partition("/")
        if boot != self._boot or not (text.isascii() and text.isdecimal()):
            return None
        since = float(text)
        return since if since <= self._now() else None
