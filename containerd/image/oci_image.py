"""Images that containerd has, read from its content store."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from containerd.image.choice import Chosen, Wanted, choose
from containerd.image.config import CONFIG_LIMIT_BYTES, parse_config
from containerd.image.manifests import DOCUMENT_LIMIT_BYTES, Descriptor
from proto.errors import DriverError

if TYPE_CHECKING:
    from containerd.api.images import Content
    from containerd.api.records import ImageRecord
    from containerd.image.config import ImageConfig

T = TypeVar("T")
_SMALL_BYTES = 64 * 1024
_DIGEST_BYTES = 71


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedImage:
    """An image read from the content store; chain_id names its topmost committed snapshot."""

    config: ImageConfig
    chain_id: str


async def load_image(content: Content, record: ImageRecord) -> LoadedImage:
    """Reads manifest and config of an image for this machine; what is not there is passed over.

    Raises:
        DriverError: NOT_FOUND when a blob is missing, or what `image_choice.choose` raises.
    """
    root = Descriptor(media_type=record.media_type, digest=record.digest, size=record.size)
    walk = choose(root, record.name)
    step = _step(lambda: next(walk))
    while isinstance(step, Wanted):
        try:
            body = await _read(content, step)
        except DriverError as error:
            step = _step(partial(walk.throw, error))
        else:
            step = await _apart(len(body), partial(_step, partial(walk.send, body)))
    config = step.config
    if config is None:
        body = await _read(content, Wanted(blob=step.manifest.config, is_config=True))
        config = await _apart(len(body), partial(parse_config, body, record.name))
    chain = await _apart(len(config.diff_ids) * _DIGEST_BYTES, partial(chain_id, config.diff_ids))
    return LoadedImage(config=config, chain_id=chain)


def _step(go: Callable[[], Wanted]) -> Wanted | Chosen:
    try:
        return go()
    except StopIteration as end:
        chosen: Chosen = end.value
        return chosen


async def _apart(size: int, work: Callable[[], T]) -> T:
    """Does what an image sizes: in a thread, unless it is as small as those of usual images."""
    return work() if size <= _SMALL_BYTES else await asyncio.to_thread(work)


async def _read(content: Content, wanted: Wanted) -> bytes:
    limit = CONFIG_LIMIT_BYTES if wanted.is_config else DOCUMENT_LIMIT_BYTES
    return await content.read(wanted.blob.digest, limit)


def chain_id(diff_ids: tuple[str, ...]) -> str:
    """The name of the snapshot that has all these layers: OCI image-spec, config, ChainID."""
    chain = ""
    for diff_id in diff_ids:
        if not chain:
            chain = diff_id
        else:
            chain = f"sha256:{hashlib.sha256(f'{chain} {diff_id}'.encode()).hexdigest()}"
    return chain
