"""Search for unused images. containerd's labels hold the state, so a plugin restart loses nothing.

Only images that this driver pulled or loaded are removed; a label marks these images. An image
without a container gets a second label with the time of the first sweep that found no container.
After the delay the image may be removed. The next use, by a container or by a start, removes the
second label.

The time is in seconds since boot, with the boot's id: nobody sets this clock, and sleep of a
suspended machine counts. The time of another boot is meaningless, so a reboot restarts the delay.
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


def _since_boot() -> float:
    """Returns the seconds since the machine's boot, including sleep."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ImageCollector:
    """Finder of unused images by containerd's metadata. Belongs to the event loop.

    The ImageActor decides at the end, because a start may have requested an image since.

    Args:
        containerd: the client.
        delay_s: seconds that an image stays after the last container.
        now: returns the seconds since boot.
        boot: id of the boot; empty for the kernel's.
    """

    def __init__(
        self,
        containerd: Containerd,
        delay_s: float,
        now: Callable[[], float] = _since_boot,
        boot: str = "",
    ) -> None:
        self._containerd = containerd
        self._delay_s = delay_s
        self._now = now
        self._boot = boot or identity.boot_id()
        self.pause_s = max(_MIN_PAUSE_S, min(_MAX_PAUSE_S, delay_s / 4))

    async def due(self, busy: Collection[str]) -> tuple[str, ...]:
        """Returns the names of images without a use for the delay; labels newly unused images.

        Args:
            busy: names of images that starts use.

        Raises:
            DriverError: containerd does not answer.
        """
        images = await self._containerd.images.list(f'labels."{PULLED}"==true')
        if not images:
            return ()
        used = {record.image for record in await self._containerd.containers.list()} | set(busy)
        due: list[str] = []
        for image in images:
            keys = {"image": image.name}
            since = self._since(image)
            if image.name in used:
                if UNUSED_SINCE in image.labels:
                    _log.debug("image kept", extra={**keys, "reason": "in use again"})
                    await self._containerd.images.set_label(image.name, UNUSED_SINCE, "")
            elif since is None:
                _log.debug("image kept", extra={**keys, "reason": "unused since this sweep"})
                label = f"{self._boot}/{int(self._now())}"
                await self._containerd.images.set_label(image.name, UNUSED_SINCE, label)
            elif self._is_due(since):
                _log.debug("image to be removed", extra={**keys, "reason": "unused for the delay"})
                due.append(image.name)
        return tuple(due)

    async def remove(self, name: str) -> None:
        """Removes an image if the image is still unused: another plugin may use the image now.

        Raises:
            DriverError: containerd does not remove the image.
        """
        image = await self._containerd.images.get(name)
        since = self._since(image) if image is not None else None
        if image is None or since is None or not self._is_due(since):
            _log.debug("image kept", extra={"image": name, "reason": "in use again, or gone"})
            return
        await self._containerd.images.delete(name)
        _log.info(
            "image removed: no task uses the image",
            extra={"image": name, "digest": image.digest, "unused_s": round(self._now() - since)},
        )

    async def remove_quietly(self, name: str) -> None:
        """Removes an image as `remove` does, but logs a failure. The next sweep tries again."""
        try:
            await self.remove(name)
        except DriverError as error:
            _log.warning("image not removed", extra={"image": name, "reason": str(error)})

    def _is_due(self, since: float) -> bool:
        return self._now() - since >= self._delay_s

    def _since(self, image: ImageRecord) -> float | None:
        """Returns the seconds since boot at which the image became unused.

        None if the label is missing, malformed or of another boot.
        """
        boot, _, text = image.labels.get(UNUSED_SINCE, "").partition("/")
        if boot != self._boot or not (text.isascii() and text.isdecimal()):
            return None
        since = float(text)
        return since if since <= self._now() else None
