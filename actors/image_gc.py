"""Which images nobody needs any more: counted from containerd, so a restart forgets nothing.

Only images that this driver pulled or loaded count, by a label. One that no container uses gets a
second label with the time since when; after the delay it may go. A container that uses it, or a
start that asks for it, takes the second label away.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from actors.identifiers import PREFIX
from proto.errors import DriverError

if TYPE_CHECKING:
    from containerd.client import Containerd
    from containerd.records import ImageRecord

PULLED = f"{PREFIX}.io/pulled"
UNUSED_SINCE = f"{PREFIX}.io/unused-since"
_MAX_PAUSE_S = 300.0
_MIN_PAUSE_S = 1.0
_log = logging.getLogger(__name__)


class ImageCollector:
    """Belongs to the event loop. Decides by containerd's books; the ImageActor has the last word.

    Args:
        containerd: whose images.
        delay_s: how long an image stays after its last container.
        now: seconds of the epoch, what the label holds.
    """

    def __init__(
        self, containerd: Containerd, delay_s: float, now: Callable[[], float] = time.time
    ) -> None:
        self._containerd = containerd
        self._delay_s = delay_s
        self._now = now
        self.pause_s = max(_MIN_PAUSE_S, min(_MAX_PAUSE_S, delay_s / 4))

    async def due(self, busy: Collection[str]) -> tuple[str, ...]:
        """Names of images that have been unused for the delay; marks the newly unused ones.

        Args:
            busy: names that count as used, whatever containerd says.

        Raises:
            DriverError: containerd cannot be asked.
        """
        ours = await self._containerd.list_images(f'labels."{PULLED}"==true')
        if not ours:
            return ()
        used = {record.image for record in await self._containerd.list_containers()} | set(busy)
        found: list[str] = []
        for image in ours:
            marked = UNUSED_SINCE in image.labels
            since = _seconds(image)
            if image.name in used:
                if marked:
                    await self._containerd.label_image(image.name, UNUSED_SINCE, "")
            elif since is None or since > self._now():
                # New, not ours to read, or of a clock that was set back.
                await self._containerd.label_image(image.name, UNUSED_SINCE, f"{self._now():.0f}")
            elif self._is_due(since):
                found.append(image.name)
        return tuple(found)

    async def remove(self, name: str) -> None:
        """Removes an image if it is still due; another plugin may have begun to use it.

        Raises:
            DriverError: containerd does not remove it.
        """
        image = await self._containerd.image(name)
        since = _seconds(image) if image is not None else None
        if image is None or since is None or not self._is_due(since):
            return
        await self._containerd.delete_image(name)
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


def _seconds(image: ImageRecord) -> float | None:
    text = image.labels.get(UNUSED_SINCE, "")
    return float(text) if text.isascii() and text.isdecimal() else None
