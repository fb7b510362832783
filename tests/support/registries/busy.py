"""Images, requests and points in time of the tests of busy registries."""

from __future__ import annotations

import email.utils
import os
import time

from tests.support.registries import images
from tests.support.registries.images import Image
from tests.support.registries.recording_server import Request


def fresh_image() -> Image:
    """Builds an image that containerd has never seen."""
    return images.build([images.layer({"hello": os.urandom(1000)})])


def at(kind: str, request: Request) -> bool:
    """Tells whether a request is for a manifest, or a blob, or a token."""
    return f"/{kind}" in request.path


def later(seconds: float) -> str:
    """Returns a point in time, in HTTP's form."""
    return email.utils.formatdate(time.time() + seconds, usegmt=True)
