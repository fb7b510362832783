"""Images that containerd has, read from its content store."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from containerd import image_choice
from containerd.image_choice import Chosen, Wanted
from containerd.image_config import CONFIG_LIMIT_BYTES, parse_config
from containerd.manifests import DOCUMENT_LIMIT_BYTES, Descriptor
from proto.errors import DriverError

if TYPE_CHECKING:
    from containerd.client import Containerd
    from containerd.image_config import ImageConfig
    from containerd.records import ImageRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedImage:
    """An image read from the content store; chain_id names its topmost committed snapshot."""

    config: ImageConfig
    chain_id: str


async def load(containerd: Containerd, record: ImageRecord) -> LoadedImage:
    """Reads manifest and config of an image for this machine; what is not there is passed over.

    Raises:
        DriverError: NOT_FOUND when a blob is missing, or what `image_choice.choose` raises.
    """
    root = Descriptor(media_type=record.media_type, digest=record.digest, size=record.size)
    walk = image_choice.choose(root, record.name)
    try:
        wanted = next(walk)
        while True:
            try:
                body = await _read(containerd, wanted)
            except DriverError as error:
                wanted = walk.throw(error)
            else:
                wanted = walk.send(body)
    except StopIteration as end:
        chosen: Chosen = end.value
    config = chosen.config
    if config is None:
        body = await _read(containerd, Wanted(blob=chosen.manifest.config, is_config=True))
        config = parse_config(body, record.name)
    return LoadedImage(config=config, chain_id=chain_id(config.diff_ids))


async def _read(containerd: Containerd, wanted: Wanted) -> bytes:
    limit = CONFIG_LIMIT_BYTES if wanted.is_config else DOCUMENT_LIMIT_BYTES
    return await containerd.read_content(wanted.blob.digest, limit)


def chain_id(diff_ids: tuple[str, ...]) -> str:
    """The name of the snapshot that has all these layers: OCI image-spec, config, ChainID."""
    chain = ""
    for diff_id in diff_ids:
        if not chain:
            chain = diff_id
        else:
            chain = f"sha256:{hashlib.sha256(f'{chain} {diff_id}'.encode()).hexdigest()}"
    return chain
