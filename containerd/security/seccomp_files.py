"""Custom seccomp profiles: files of the operator that a job may name.

The job's author chooses the name and the driver reads as root, so the walk stays below one
directory, follows no link, and opens nothing that could block. Errors say what is wrong with the
file, never what is in it.
"""

from __future__ import annotations

import errno
import json
import os
import stat

from containerd.security.seccomp import Profile
from containerd.security.seccomp_json import MalformedProfileError, parse
from containerd.syscalls import INSIDE, open_plain
from proto.errors import Code, DriverError

LIMIT_BYTES = 1024 * 1024
_SHOWN = 256


def load(directory: str, written: str) -> Profile:
    """The profile that a job names. Blocks for as long as the disk does.

    Args:
        directory: the driver's `seccomp_profile_dir`.
        written: a path below it, absolute or relative to it.

    Raises:
        DriverError: code DENIED for a path that leads out or over a link; INVALID otherwise.
    """
    return decode(written, read(directory, written))


def decode(written: str, text: bytes) -> Profile:
    """The profile of a file's content.

    Raises:
        DriverError: code INVALID; the message tells the place of the mistake, not the content.
    """
    try:
        return parse(text)
    except MalformedProfileError as error:
        raise DriverError(
            f"Error in creating container: decoding seccomp profile failed {_quoted(written)}:"
            f" {error}",
            resolution="profiles have the JSON of OCI's linux.seccomp or of Docker's default.json",
            code=Code.INVALID,
        ) from None


def read(directory: str, written: str) -> bytes:
    """Content of a regular file below the directory.

    Raises:
        DriverError: as of `load`.
    """
    relative = _below(directory, written)
    try:
        root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _refused(
            written,
            f"the driver's seccomp_profile_dir {directory}: {error.strerror}",
            "the operator of this node makes that directory and puts profiles there",
        ) from None
    try:
        descriptor = open_plain(root, relative, INSIDE)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise _outside(directory, written) from None
        if error.errno == errno.ELOOP:
            raise _refused(written, "links are not followed", code=Code.DENIED) from None
        raise _refused(written, error.strerror or "it cannot be opened") from None
    finally:
        os.close(root)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _refused(written, "it is not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            text = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise _refused(written, error.strerror or "it cannot be read") from None
    finally:
        os.close(descriptor)
    if len(text) > LIMIT_BYTES:
        raise _refused(written, "it is larger than 1 MiB")
    return text


def _below(directory: str, written: str) -> str:
    """The path from the directory on, as written: the kernel judges its dots and links."""
    relative = written
    if written.startswith("/"):
        base = directory.rstrip("/") + "/"
        if not written.startswith(base):
            raise _outside(directory, written)
        relative = written[len(base) :].lstrip("/")
    if not relative or not relative.isprintable():
        raise _refused(written, "it does not name a file")
    return relative


def _outside(directory: str, written: str) -> DriverError:
    return _refused(
        written,
        f"it is not below {directory}",
        "name a file in the driver's seccomp_profile_dir",
        code=Code.DENIED,
    )


def _refused(
    written: str, why: str, resolution: str = "", *, code: Code = Code.INVALID
) -> DriverError:
    return DriverError(
        f"Error in creating container: cannot load seccomp profile {_quoted(written)}: {why}",
        resolution=resolution,
        code=code,
    )


def _quoted(written: str) -> str:
    return json.dumps(written[:_SHOWN])
