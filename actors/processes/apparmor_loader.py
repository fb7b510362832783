"""Loads the driver's own AppArmor profile into the kernel, by the program `apparmor_parser`."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from pathlib import Path

from actors.files import state_dir
from actors.processes import child_process, short_program
from containerd.security import apparmor
from proto.errors import Code, DriverError

_PARSER = "apparmor_parser"
_FILE = "apparmor.profile"
_PARSER_S = 30.0
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_./+-]+")
_ADVICE = (
    "apt-get install apparmor, or set default_apparmor to the name of a loaded profile or to"
    ' "unconfined" in the plugin block'
)


class ProfileLoader:
    """Loads the profile once, and again after a failure. Used on the event loop.

    Args:
        directory: the driver's state directory; the profile's text is written below.
        path: directories with the parser.
        root: root of the machine's files; tests use another directory.
    """

    def __init__(
        self,
        directory: Path,
        path: str = child_process.BASE_ENVIRONMENT["PATH"],
        root: Path = Path("/"),
    ) -> None:
        self._directory = directory
        self._path = path
        self._root = root
        self._loading: asyncio.Task[None] | None = None
        self.problem = ""
        """The failure of the last attempt; empty before an attempt, and for a loaded profile."""

    def begin(self) -> None:
        """Starts to load the profile, unless the profile is loaded or another attempt runs."""
        if self._loading is None or (self._loading.done() and self.problem):
            self._loading = asyncio.get_running_loop().create_task(asyncio.to_thread(self._load))
            self._loading.add_done_callback(self._note)

    async def loaded(self) -> None:
        """Waits until the kernel has the profile.

        Raises:
            DriverError: code PRECONDITION; the parser is absent or refuses the profile.
        """
        self.begin()
        if self._loading is not None:
            await asyncio.shield(self._loading)

    def _note(self, ended: asyncio.Task[None]) -> None:
        error = None if ended.cancelled() else ended.exception()
        self.problem = str(error or "")

    def _load(self) -> None:
        program = parser(self._path)
        if program is None:
            raise _failed(f"no program {_PARSER} in {self._path}")
        try:
            state_dir.make_private(self._directory)
            file, new = (self._directory / f"{_FILE}{end}" for end in ("", f".{os.getpid()}"))
            new.write_text(text(self._root))
            new.replace(file)
        except OSError as error:
            raise _failed(f"{error.filename}: {error.strerror}") from error
        ended = short_program.run([program, "-Kr", str(file)], timeout_s=_PARSER_S)
        if ended.status != 0:
            raise _failed(f"{program}: {' '.join(ended.stderr.split())[:256]}")


def parser(path: str = child_process.BASE_ENVIRONMENT["PATH"]) -> str | None:
    """Returns the path of the program; None if the program is absent."""
    return shutil.which(_PARSER, path=path)


def text(root: Path = Path("/")) -> str:
    """Returns the profile for this machine. Blocks for a moment.

    Args:
        root: root of the machine's files; tests use another directory.
    """
    existing = {name for name in apparmor.FILES if (root / "etc/apparmor.d" / name).exists()}
    return apparmor.profile(_own_profile(root), existing)


def _own_profile(root: Path) -> str:
    """Returns the profile of this process, whose programs send signals to tasks."""
    try:
        # With a profile, the file has its name and its mode: `nomad (enforce)`.
        name = (root / "proc/self/attr/current").read_text().rstrip("\0\n").partition(" ")[0]
    except (OSError, UnicodeDecodeError):
        return apparmor.UNCONFINED
    return name if _PLAIN_NAME.fullmatch(name) else apparmor.UNCONFINED


def _failed(reason: str) -> DriverError:
    return DriverError(
        f"cannot load the AppArmor profile {apparmor.NAME}",
        details=reason,
        resolution=_ADVICE,
        recoverable=True,
        code=Code.PRECONDITION,
    )
