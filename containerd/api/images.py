"""containerd's services Images and Content: names of images, and blobs."""

from __future__ import annotations

from google.protobuf.field_mask_pb2 import FieldMask

from containerd.api import methods
from containerd.api.calls import CALL_S, RUNTIME_S, AsyncCalls
from containerd.api.errors import unless_missing
from containerd.api.records import ImageRecord
from proto.containerd import content_pb2, images_pb2, types_pb2
from proto.errors import Code, DriverError


class Images:
    """Names of images in a namespace. Deleting a missing image is no failure."""

    def __init__(self, call: AsyncCalls) -> None:
        self._call = call

    async def get(self, name: str) -> ImageRecord | None:
        """Returns the image of a normalised name; None if it is missing."""
        request = images_pb2.GetImageRequest(name=name)
        answer = await unless_missing(
            self._call(methods.IMAGE_GET, request, f"look up image {name}", timeout_s=CALL_S)
        )
        return None if answer is None else _record(answer.image)

    async def list(self, *filters: str) -> tuple[ImageRecord, ...]:
        """Returns images that match any filter, in containerd's filter syntax; all without one."""
        request = images_pb2.ListImagesRequest(filters=filters)
        answer = await self._call(methods.IMAGE_LIST, request, "list images", timeout_s=CALL_S)
        return tuple(_record(image) for image in answer.images)

    async def set_label(self, name: str, key: str, value: str) -> None:
        """Sets one label of an image, or removes the label if the value is empty."""
        # The mask keeps the target. The request still needs one: containerd 1.7 reads the target
        # before the mask, and a missing target is a nil dereference (services/images).
        image = images_pb2.Image(name=name, labels={key: value}, target=types_pb2.Descriptor())
        request = images_pb2.UpdateImageRequest(
            image=image, update_mask=FieldMask(paths=[f"labels.{key}"])
        )
        await unless_missing(
            self._call(methods.IMAGE_UPDATE, request, f"label image {name}", timeout_s=CALL_S)
        )

    async def delete(self, name: str) -> None:
        """Removes an image's name, and waits until containerd has collected its unused blobs."""
        request = images_pb2.DeleteImageRequest(name=name, sync=True)
        await unless_missing(
            self._call(methods.IMAGE_DELETE, request, f"delete image {name}", timeout_s=RUNTIME_S)
        )


class Content:
    """Blobs of the content store, which all namespaces share."""

    def __init__(self, call: AsyncCalls) -> None:
        self._call = call

    async def read(self, digest: str, limit_bytes: int) -> bytes:
        """Returns a small blob.

        Raises:
            DriverError: NOT_FOUND, or CORRUPT for a blob of more than limit_bytes.
        """
        request = content_pb2.ReadContentRequest(digest=digest, size=limit_bytes + 1)
        parts = await self._call.collect(
            methods.CONTENT_READ, request, f"read blob {digest}", CALL_S, lambda part: part.data
        )
        data = b"".join(parts)
        if len(data) > limit_bytes:
            raise DriverError(
                f"blob {digest} is larger than a manifest or config can be",
                details=f"more than {limit_bytes} bytes",
                code=Code.CORRUPT,
            )
        return data


def _record(image: images_pb2.Image) -> ImageRecord:
    return ImageRecord(
        name=image.name,
        digest=image.target.digest,
        media_type=image.target.media_type,
        size=image.target.size,
        labels=dict(image.labels),
    )
