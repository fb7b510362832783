"""Loads custom seccomp profiles: files of the operator that a job may name.

The job's author chooses the name, and the driver reads as root. So the driver stays below
`seccomp_profile_dir`, follows no link, and never opens a file that could block. Errors never
contain a part of the file.
"""

from __future__ import annotations

import errno
import json
import os
import stat

from containerd.security.seccomp import Profile
from containerd.security.seccomp_json import MalformedProfileError, parse
from containerd.syscalls import INSIDE, open_plain
from proto.errors import Code, DriverError, start_refused

LIMIT_BYTES = 1024 * 1024
_SHOWN = 256


def load(directory: str, written: str) -> Profile:
    """Loads the profile with a job's name. Blocks for as long as the disk does.

    Args:
        directory: the driver's `seccomp_profile_dir`.
        written: a path below the directory, absolute or relative to the directory.

    Raises:
        DriverError: code DENIED; the path leads out of the directory or over a link. Code INVALID;
            the file cannot be read, or is no profile.
    """
    return decode(written, read(directory, written))


def decode(written: str, text: bytes) -> Profile:
    """Decodes a file's content.

    Raises:
        DriverError: code INVALID; the message names the position of the mistake, not the content.
    """
    try:
        return parse(text)
    except MalformedProfileError as error:
        raise start_refused(
            f"decoding seccomp profile failed {_quoted(written)}: {error}",
            "profiles have the JSON of OCI's linux.seccomp or of Docker's default.json",
        ) from None


def read(directory: str, written: str) -> bytes:
    """Reads a regular file below the directory.

    Raises:
        DriverError: see `load`.
    """
    relative = _below(directory, written)
    try:
        root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _refused(
            written,
            f"the driver's seccomp_profile_dir {directory}: {error.strerror}",
            "the operator must create the directory and put profiles into the directory",
        ) from None
    try:
        descriptor = open_plain(root, relative, INSIDE)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise _outside(directory, written) from None
        if error.errno == errno.ELOOP:
            raise _refused(written, "links are not followed", code=Code.DENIED) from None
        raise _refused(written, error.strerror or "the file cannot be opened") from None
    finally:
        os.close(root)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _refused(written, "the path is not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            text = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise _refused(written, error.strerror or "the file cannot be read") from None
    finally:
        os.close(descriptor)
    if len(text) > LIMIT_BYTES:
        raise _refused(written, "the file is larger than 1 MiB")
    return text


def _below(directory: str, written: str) -> str:
    """Returns the path relative to the directory; the kernel checks dots and links."""
    relative = written
    if written.startswith("/"):
        base = directory.rstrip("/") + "/"
        if not written.startswith(base):
            raise _outside(directory, written)
        relative = written[len(base) :].lstrip("/")
    if not relative or not relative.isprintable():
        raise _refused(written, "the path does not name a file")
    return relative


def _outside(directory: str, written: str) -> DriverError:
    return _refused(
        written,
        f"the path is not below {directory}",
        "name a file in the driver's seccomp_profile_dir",
        code=Code.DENIED,
    )


def _refused(
    written: str, reason: str, resolution: str = "", *, code: Code = Code.INVALID
) -> DriverError:
    return start_refused(
        f"cannot load seccomp profile {_quoted(written)}: {reason}", resolution, code=code
    )


def _quoted(written: str) -> str:
    return json.dumps(written[:_SHOWN])
