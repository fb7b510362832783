"""Device nodes that show whether a program opens them."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

_NO_DRIVER = os.makedev(4000, 0)


def tripwire(path: Path) -> Path:
    """Creates a device without a driver: a program may name the device; an open gives ENXIO."""
    if os.geteuid() != 0:
        pytest.skip("making device nodes needs root")
    os.mknod(path, stat.S_IFCHR | 0o600, _NO_DRIVER)
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError as error:
        if error.errno == errno.ENXIO:
            return path
        if error.errno in {errno.EPERM, errno.EACCES}:
            pytest.skip("this file system has no devices")
    raise AssertionError("something serves the device that nothing should serve")
