"""Loading of an image from containerd's content store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from containerd.image.choice import Chosen, Wanted, choose
from containerd.image.config import CONFIG_LIMIT_BYTES, parse_config
from containerd.image.manifests import DOCUMENT_LIMIT_BYTES, Descriptor, sha256_of
from proto.errors import DriverError
from proto.values import dataclass

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


async def load_image(content: Content, record: ImageRecord, platform: str = "") -> LoadedImage:
    """Reads manifest and config of an image for this machine.

    Args:
        content: containerd's content store.
        record: the image.
        platform: the platform that a job has chosen; empty for this machine's.

    Raises:
        DriverError: NOT_FOUND for a missing blob, or an error of `choice.choose`.
    """
    root = Descriptor(media_type=record.media_type, digest=record.digest, size=record.size)
    walk = choose(root, record.name, platform)
    step = _step(lambda: next(walk))
    while isinstance(step, Wanted):
        try:
            body = await _read(content, step)
        except DriverError as error:
            step = _step(partial(walk.throw, error))
        else:
            step = await _in_thread_if_large(len(body), partial(_step, partial(walk.send, body)))
    config = step.config
    if config is None:
        body = await _read(content, Wanted(blob=step.manifest.config, is_config=True))
        config = await _in_thread_if_large(len(body), partial(parse_config, body, record.name))
    chain = await _in_thread_if_large(
        len(config.diff_ids) * _DIGEST_BYTES, partial(chain_id, config.diff_ids)
    )
    return LoadedImage(config=config, chain_id=chain)


def _step(go: Callable[[], Wanted]) -> Wanted | Chosen:
    try:
        return go()
    except StopIteration as end:
        chosen: Chosen = end.value
        return chosen


async def _in_thread_if_large(size: int, work: Callable[[], T]) -> T:
    """Runs work that grows with an image: in a thread, unless the data has a usual size.

    Args:
        size: bytes of the data.
        work: parses or hashes the data.
    """
    return work() if size <= _SMALL_BYTES else await asyncio.to_thread(work)


async def _read(content: Content, wanted: Wanted) -> bytes:
    limit = CONFIG_LIMIT_BYTES if wanted.is_config else DOCUMENT_LIMIT_BYTES
    return await content.read(wanted.blob.digest, limit)


def chain_id(diff_ids: tuple[str, ...]) -> str:
    """Returns the name of the snapshot with all layers (OCI image-spec, config, ChainID).

    Args:
        diff_ids: digests of the uncompressed layers, lowest first.
    """
    chain = ""
    for diff_id in diff_ids:
        chain = sha256_of(f"{chain} {diff_id}".encode()) if chain else diff_id
    return chain
