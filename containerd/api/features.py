"""Features by version: older releases of containerd lack some."""

from __future__ import annotations

import re

from proto.errors import Code, DriverError

ZSTD = "zstd"
# Feature: the first release with the feature, and a description.
_SINCE = {ZSTD: ((1, 5), "unpack layers compressed with zstd")}


def of(version: str) -> dict[str, bool]:
    """Returns each feature's name, and True if containerd of this version has the feature.

    A version that does not begin with numbers belongs to a private build, and counts as new.
    """
    numbers = re.match(r"v?(\d+)\.(\d+)", version)
    release = (int(numbers[1]), int(numbers[2])) if numbers else None
    return {name: release is None or release >= since for name, (since, _) in _SINCE.items()}


def lacking(version: str) -> str:
    """Returns descriptions of the missing features, separated by commas."""
    return ", ".join(_SINCE[name][1] for name, has in of(version).items() if not has)


def require(feature: str, version: str, user: str) -> None:
    """Refuses a containerd without a feature.

    Args:
        feature: a key of `of`.
        version: containerd's version.
        user: the image or job that needs the feature; begins the error's sentence.

    Raises:
        DriverError: code UNSUPPORTED.
    """
    if of(version)[feature]:
        return
    (major, minor), description = _SINCE[feature]
    raise DriverError(
        f"{user} needs a containerd that can {description}",
        details=f"this node has {version}; containerd can since {major}.{minor}",
        resolution=f"constrain the job to nodes with ${{attr.driver.containerd.{feature}}} = true",
        code=Code.UNSUPPORTED,
    )
