"""The runtimes' programs on this machine: their versions, and whether they start anything here.

A program may be installed and refuse every start: crun on a host with both versions of cgroups, an
old gVisor on a new kernel. Each is asked once to start a program that does not exist. A runtime
that names it in its failure has done all the rest. What is found is kept until a program's file
changes or the machine boots.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import re
import shlex
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from actors.files import tree_removal
from actors.processes import short_program
from containerd import runtimes
from containerd.security import known_holes
from proto.errors import DriverError
from proto.release import RELEASE

HOME = Path("/run/nomad-driver-containerd")
"""One for the machine, whatever state_dir is."""
_NAMES = ("runc", "crun", "runsc")
_RUNS_IN = {
    "io.containerd.runc.v1": "runc",
    "io.containerd.runc.v2": "runc",
    "io.containerd.runsc.v1": "runsc",
}
_log = logging.getLogger(__name__)
_ABSENT = "/containerd-driver-probe"
_LIMIT_S = 15.0
_MAX_REASON = 300
_VERSION = re.compile(r"^\w+ version (\S+)|^commit: (\S*deb\S*)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeProgram:
    """One program.

    Attributes:
        name: runc, crun or runsc.
        path: where it is.
        version: what it says, with a distribution's marks.
        refusal: why it starts nothing here; empty where it does, or nobody knows.
        holes: the names of its known holes.
    """

    name: str
    path: str
    version: str
    refusal: str = ""
    holes: tuple[str, ...] = ()


Marks = tuple[tuple[str, str, int, int], ...]


def marks() -> Marks:
    """Returns (name, path, time, size) of the programs that there are: one that changed differs."""
    found: list[tuple[str, str, int, int]] = []
    for name in _NAMES:
        path = runtimes.program(name)
        with contextlib.suppress(OSError):
            if path is not None:
                status = path.stat()
                found.append((name, str(path), status.st_mtime_ns, status.st_size))
    return tuple(found)


def offered(programs: tuple[RuntimeProgram, ...], default: str) -> list[str]:
    """Returns the names of runtimes that a job may write and that start tasks here."""
    work = {found.name for found in programs if not found.refusal}
    return [
        name
        for name in runtimes.available()
        if name == default or (runs := _RUNS_IN.get(name, name)) in work or runs not in _NAMES
    ]


def look(home: Path | None = None) -> tuple[RuntimeProgram, ...]:
    """Returns what is known of the programs, tried now where nothing is. Blocks."""
    wanted, home = marks(), home or HOME
    if os.geteuid() != 0:
        return tuple(_described(name, path) for name, path, *_ in wanted)
    try:
        with _noted(home) as note:
            return _from_note(note, wanted) or _tried(note, wanted, home)
    except OSError:
        return tuple(_described(name, path) for name, path, *_ in wanted)


@contextlib.contextmanager
def _noted(home: Path) -> Generator[int, None, None]:
    """The note of what was found, held: two plugins do not try at the same time."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    note = os.open(home / "runtimes.json", flags, 0o600)
    try:
        fcntl.flock(note, fcntl.LOCK_EX)
        yield note
    finally:
        os.close(note)


def _from_note(note: int, wanted: Marks) -> tuple[RuntimeProgram, ...]:
    with contextlib.suppress(ValueError, TypeError, KeyError):
        document: Any = json.loads(os.pread(note, 1 << 16, 0))
        if document["of"] == _of(wanted):
            return tuple(_read(found) for found in document["programs"])
    return ()


def _read(found: Any) -> RuntimeProgram:
    return RuntimeProgram(
        name=str(found["name"]),
        path=str(found["path"]),
        version=str(found["version"]),
        refusal=str(found["refusal"]),
        holes=tuple(map(str, found["holes"])),
    )


def _of(wanted: Marks) -> list[Any]:
    """Returns what a note is about: another release of ours may know more holes."""
    return [RELEASE, *(list(mark) for mark in wanted)]


def _tried(note: int, wanted: Marks, home: Path) -> tuple[RuntimeProgram, ...]:
    found = tuple(_described(name, path, home) for name, path, *_ in wanted)
    document = {"of": _of(wanted), "programs": [asdict(each) for each in found]}
    os.ftruncate(note, 0)
    os.pwrite(note, json.dumps(document).encode(), 0)
    return found


def _described(name: str, path: str, home: Path | None = None) -> RuntimeProgram:
    refusal = ""
    with contextlib.suppress(DriverError, OSError):
        if home is not None:
            refusal = _refusal(name, path, home / "probe")
    version = ""
    with contextlib.suppress(DriverError, OSError):
        words = short_program.run([path, "--version"], timeout_s=_LIMIT_S).stdout
        told = [first or second for first, second in _VERSION.findall(words)]
        # Debian's revision stands in the line of the commit.
        version = told[-1] if told else ""
    holes = tuple(hole.cve for hole in known_holes.of(name, version))
    return RuntimeProgram(name=name, path=path, version=version, refusal=refusal, holes=holes)


def _refusal(name: str, path: str, home: Path) -> str:
    """Has the runtime start what does not exist, and returns what else it complains of."""
    tree_removal.remove(home)
    (home / "rootfs").mkdir(mode=0o700, parents=True)
    (home / "config.json").write_text(json.dumps(_SPEC))
    command = [path, "--root", str(home / "root")]
    container = f"containerd-driver-probe-{name}"
    try:
        words = ["run", "--bundle", str(home), container]
        ended = short_program.run([*command, *words], timeout_s=_LIMIT_S)
        short_program.run([*command, "delete", "--force", container], timeout_s=_LIMIT_S)
    finally:
        tree_removal.remove(home)
    told = f"{ended.stdout}\n{ended.stderr}".strip()
    return "" if ended.status == 0 or _ABSENT in told else _reason(told)


def _reason(told: str) -> str:
    line = told.splitlines()[-1] if told else "it says nothing"
    with contextlib.suppress(ValueError):
        fields = dict(word.split("=", 1) for word in shlex.split(line) if "=" in word)
        line = fields.get("msg", line)
    return line[:_MAX_REASON]


_SPEC = {
    "ociVersion": "1.0.2",
    "process": {"user": {"uid": 0, "gid": 0}, "args": [_ABSENT], "cwd": "/"},
    "root": {"path": "rootfs", "readonly": True},
    # The runtime makes device nodes in /dev and opens them. The root lies below /run, and systemd
    # mounts /run with nodev, so /dev is a file system of its own.
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
    ],
    "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]},
}


class RuntimeWatch:
    """What is known of the programs, for one that looks again and again and never waits long."""

    def __init__(self) -> None:
        self._marks: Marks | None = None
        self._found: tuple[RuntimeProgram, ...] = ()
        self._look: asyncio.Task[tuple[RuntimeProgram, ...]] | None = None

    def found(self) -> tuple[RuntimeProgram, ...]:
        """Returns what is known now; a look begins where a program has changed."""
        if self._look is not None and self._look.done():
            error = self._look.exception()
            if error is None:
                self._found = self._look.result()
            else:
                _log.error("the runtimes cannot be looked at", extra={"why": repr(error)})
            self._look = None
        now = marks()
        if self._look is None and now != self._marks:
            self._marks = now
            self._look = asyncio.create_task(asyncio.to_thread(look))
        return self._found

    async def pause(self, seconds: float) -> None:
        """Waits so long, or until a look that is under way has ended."""
        if self._look is None:
            await asyncio.sleep(seconds)
        else:
            await asyncio.wait([self._look], timeout=seconds)
